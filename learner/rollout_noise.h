#pragma once

// What rollout workers counted inside their operators, against what was configured. Workers are
// other processes, perhaps of another build: that a run says "10 % error" is believed only if every
// group's own counts say so. Pure functions, thread-safe.

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/group_store.h"
#include "learner/rollout_group.h"
#include "numerics/aqn.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"

namespace temper::learner {

// A group's counts as rows. FailedPrecondition for a count whose phase, direction or operator is no
// name that this build knows.
absl::StatusOr<numerics::NoiseCounters> RolloutCountsOf(const RolloutGroup& group);

// What each worker's rollouts have counted, of all its groups together. A rare error (spike, dead
// zone) may strike nothing in one group, and a few draws say little of an error's size; of all of a
// worker's groups both can be judged.
struct WorkerCounts {
  uint64_t groups = 0;
  numerics::NoiseCounters counters;
};
using CountsByWorker = std::map<std::string, WorkerCounts>;

// Adds the counts of all examined groups of a batch, to `counters` and to those of their workers.
// FailedPrecondition, naming the first group that is wrong, its worker and the row, if a group by
// itself does not show what was configured: of the error every row of (rollout, forward) and
// nothing else (CheckSeen), of AQN what the versions that sampled it call for (CheckAqnSeen); or if
// its worker's groups together do not show the error, or, from numerics::kJudgedGroups of them on,
// not its size (CheckAchievedScale). So a row that one worker leaves out is seen in the step in
// which it did, whatever the others counted, and a worker that errs at half the strength in time.
absl::Status AddCheckedRolloutCounts(const ClosedBatch& batch, const numerics::NoisePolicy& policy,
                                     const numerics::AqnPlan& aqn, int num_layers,
                                     CountsByWorker* by_worker, numerics::NoiseCounters* counters);

}  // namespace temper::learner
