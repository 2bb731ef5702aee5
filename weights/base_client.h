#pragma once

// The pulling side of WeightService.GetBaseManifest, and of the bytes it names.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/stop_token.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/tls.h"
#include "weights/weight_version.h"

namespace temper::weights {

struct BasePull {
  std::string address;  // "host:port" of the learner
  std::string run_id;
  rpc::TlsOptions tls;
  absl::Duration timeout = absl::Minutes(10);  // of all of it
  base::StopToken* stop = nullptr;             // raised: Cancelled; may be null
  rpc::RpcMetrics* metrics = nullptr;          // may be null
};

// The frozen base of a run that trains adapters, whole and verified, or nothing. Blocks; a bucket
// whose bytes fail their hash is asked for again, three times in all.
// Errors: Unavailable (the learner cannot be reached, or has not read its policy yet); NotFound
// (the run trains the whole model); FailedPrecondition (it is of another run); InvalidArgument (a
// manifest that is not of a base); those of ReceiveVersion.
absl::StatusOr<std::shared_ptr<const WeightVersion>> PullBase(const BasePull& pull);

}  // namespace temper::weights
