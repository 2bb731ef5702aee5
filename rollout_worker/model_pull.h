#pragma once

// How a worker learns what the run's model is: from the learner, over the wire, always.

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rollout_worker/run_setup.h"
#include "services/base/stop_token.h"
#include "services/member/membership_client.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/tls.h"
#include "weights/model_files.h"
#include "weights/weight_version.h"

namespace temper::rollout_worker {

// After a pull that failed with `status`, `damaged` of which, this one included, brought bytes that
// were not what they should be. Pure.
//   Unavailable, DeadlineExceeded, NotFound   again: no learner, not ready, or not reached in time
//   DataLoss                                  again, three times in all
//   Cancelled and all others                  no further try has a point
bool PullModelAgain(const absl::Status& status, int damaged);

struct ModelPullOptions {
  const member::MembershipClient* membership = nullptr;  // outlives the call
  rpc::TlsOptions tls;
  base::StopToken* stop = nullptr;     // raised: Cancelled
  rpc::RpcMetrics* metrics = nullptr;  // may be null
  // A learner reads a large model and its checkpoint before it is ready.
  absl::Duration patience = absl::Minutes(15);
};

// Waits for the run's learner and pulls the model files from it. A learner that restarts meanwhile
// is asked again. Logs for whom it waits, when that changes.
// Errors: DeadlineExceeded, with what was missing, after `patience`; Cancelled after a stop; those
// of weights::PullModelFiles that no further try can mend.
absl::StatusOr<weights::ModelFiles> AwaitModelFiles(const ModelPullOptions& options);

// The frozen base of a run that trains adapters, from the learner, on the same terms as the model
// files.
absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> AwaitBase(
    const ModelPullOptions& options);

// AwaitModelFiles and MakeRunSetup, with the configuration of the membership's Join. Errors of
// both.
absl::StatusOr<std::unique_ptr<RunSetup>> AwaitRunSetup(const ModelPullOptions& options);

// A worker that is stopped before it has a model leaves the run. Returns the membership's end.
absl::Status LeaveBeforeWork(member::MembershipClient* membership);

}  // namespace temper::rollout_worker
