#pragma once

// The pulling side of WeightService.PullModelFiles.

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/stop_token.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/tls.h"
#include "weights/model_files.h"

namespace temper::weights {

struct ModelFilePull {
  std::string address;  // "host:port" of the learner
  std::string run_id;
  rpc::TlsOptions tls;
  absl::Duration timeout = absl::Minutes(2);  // of the whole stream
  base::StopToken* stop = nullptr;            // raised: Cancelled; may be null
  rpc::RpcMetrics* metrics = nullptr;         // may be null
};

// One try: all files whole, each with its hash, or none. Blocks.
// Errors: Unavailable (the learner cannot be reached, or has not read its policy yet);
// FailedPrecondition (it is of another run); DataLoss (a stream that ends early, or bytes of
// another hash); InvalidArgument (a foreign name, a file missing); ResourceExhausted (a file above
// its limit); DeadlineExceeded; Cancelled.
absl::StatusOr<ModelFiles> PullModelFiles(const ModelFilePull& pull);

}  // namespace temper::weights
