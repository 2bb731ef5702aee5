#pragma once

// The learner leads the broadcast group: who is alive comes from its membership, groups are
// announced to the orchestrator, moves are logged and counted.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "learner/learner_metrics.h"
#include "learner/orchestrator_link.h"
#include "services/member/membership_client.h"
#include "temper/v1/config.pb.h"
#include "weights/group_runner.h"

namespace temper::learner {

// All that is pointed to outlives the runner.
struct BroadcastLeadOptions {
  std::string run_id;
  uint64_t timeline = 0;
  uint64_t incarnation = 0;
  v1::WeightsConfig config;
  const member::MembershipClient* membership = nullptr;
  OrchestratorLink* orchestrator = nullptr;
  LearnerMetrics* metrics = nullptr;
};

// The running root of the run's broadcast groups; null where workers pull (broadcaster grpc).
// Errors: InvalidArgument for a broadcaster that this build does not have.
absl::StatusOr<std::unique_ptr<weights::GroupRunner>> LeadBroadcasts(
    const BroadcastLeadOptions& options);

}  // namespace temper::learner
