#pragma once

// What the learner asks of the orchestrator. One real implementation over gRPC
// (learner/orchestrator_client.h), one in tests. Thread-safe.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::learner {

// Every call tries again while the orchestrator is Unavailable, until `deadline`. Common errors:
// Unavailable or DeadlineExceeded (no answer in time), Cancelled (a stop was requested), Aborted
// (another timeline is open: this process is no longer the learner).
class OrchestratorLink {
 public:
  virtual ~OrchestratorLink() = default;

  virtual absl::StatusOr<v1::BeginTimelineReply> BeginTimeline(
      const v1::BeginTimelineRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::AdmitGroupReply> AdmitGroup(const v1::AdmitGroupRequest& request,
                                                         absl::Time deadline) = 0;
  virtual absl::StatusOr<v1::CommitStepReply> CommitStep(const v1::CommitStepRequest& request,
                                                         absl::Time deadline) = 0;
  // Also Unavailable while an evaluation holds the versions still.
  virtual absl::StatusOr<v1::PublishManifestReply> PublishManifest(
      const v1::PublishManifestRequest& request, absl::Time deadline) = 0;
  // A broadcast group is announced, an epoch is over. Also Aborted for a late epoch.
  virtual absl::Status FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                          absl::Time deadline) = 0;
  virtual absl::Status EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                         absl::Time deadline) = 0;
  // Writes a copy of the ledger to the file `path`, whole and verified or not at all. A stop that
  // was raised before does not cancel it. Also ResourceExhausted: no room there, or here.
  virtual absl::Status SnapshotLedger(const v1::SnapshotLedgerRequest& request,
                                      const std::string& path, absl::Time deadline) = 0;
  virtual absl::Status StopRun(const v1::StopRunRequest& request, absl::Time deadline) = 0;
};

}  // namespace temper::learner
