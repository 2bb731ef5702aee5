#include "orchestrator/lease_policy.h"

#include <algorithm>

namespace temper::orchestrator {
namespace {

LeaseDecision None(std::string reason) {
  LeaseDecision decision;
  decision.reason = std::move(reason);
  return decision;
}

// Whether the worker's weights are good enough for what would be leased.
bool Suits(const StepOptions& options, const WorkSnapshot& now, const WorkerVersion& worker) {
  if (!worker.has_version || worker.timeline != now.timeline) return false;
  if (worker.version > now.step.latest_version) return false;
  const uint64_t behind = now.step.latest_version - worker.version;
  if (now.evaluating || options.max_staleness == 0) return behind == 0;
  return behind + 1 <= options.max_staleness;
}

LeaseDecision LeaseItem(const WorkSnapshot& now) {
  if (!now.ready_item) return None(now.backing_off_items > 0 ? "backing_off" : "evaluating");
  LeaseDecision decision;
  decision.kind = LeaseDecision::Kind::kEval;
  decision.reason = "evaluation";
  decision.item = *now.ready_item;
  decision.version = now.step.latest_version;
  return decision;
}

LeaseDecision LeaseGroups(const StepOptions& options, uint32_t groups_per_lease,
                          const WorkSnapshot& now, const WorkerVersion& worker) {
  if (options.max_staleness == 0 && now.step.latest_version != now.step.steps_closed) {
    return None("awaiting_version");
  }
  LeaseDecision decision;
  const size_t ready = std::min<size_t>(groups_per_lease, now.ready_groups.size());
  decision.groups.assign(now.ready_groups.begin(), now.ready_groups.begin() + ready);
  decision.open = DecideOpen(options, now.step);
  // Groups waiting for their retry are older than any that would be opened, but nobody waits for
  // them: an index is a name, not an order of execution.
  decision.lease_opened = std::min<uint32_t>(groups_per_lease - ready, decision.open.groups);
  if (decision.groups.empty() && decision.lease_opened == 0) {
    return None(now.backing_off_groups > 0 ? "backing_off" : decision.open.reason);
  }
  if (decision.lease_opened == 0) decision.open.groups = 0;
  decision.kind = LeaseDecision::Kind::kTrain;
  decision.reason = decision.lease_opened > 0 ? decision.open.reason : "pending";
  decision.version = worker.version;
  return decision;
}

}  // namespace

LeaseDecision DecideLease(const StepOptions& options, uint32_t groups_per_lease,
                          const WorkSnapshot& snapshot, const WorkerVersion& worker) {
  if (!snapshot.ended.empty()) return None(snapshot.ended);
  if (snapshot.timeline == 0) return None("no_timeline");
  if (!snapshot.step.has_version) return None("no_version");
  if (snapshot.reward_servers == 0) return None("no_reward_server");
  if (!Suits(options, snapshot, worker)) return None("stale_weights");
  if (snapshot.evaluating) return LeaseItem(snapshot);
  return LeaseGroups(options, std::max(1u, groups_per_lease), snapshot, worker);
}

}  // namespace temper::orchestrator
