#pragma once

// When a step's batch is complete, and what goes into it: one pure decision, with its reason.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace temper::learner {

// A held group as the decision sees it.
struct HeldGroup {
  uint64_t group_index = 0;
  uint64_t oldest_version = 0;
  bool zero_variance = false;
};

struct BatchRules {
  int groups_per_step = 1;
  uint64_t max_staleness = 0;  // steps; 0: synchronous
};

// What the orchestrator said last about the step that is open.
struct StepBound {
  uint64_t step = 0;        // number of the step it speaks of; others are ignored
  bool close_step = false;  // nothing more will come
  std::string reason;
};

enum class BatchAction {
  kWait,   // not complete yet
  kTrain,  // `train` is the batch
  kSkip,   // the step closes without a batch: nothing was kept
};

// Indices into the held groups. Groups named nowhere stay held (surplus of asynchronous runs).
struct BatchDecision {
  BatchAction action = BatchAction::kWait;
  std::vector<size_t> train;          // ascending group_index
  std::vector<size_t> zero_variance;  // end with this step
  std::vector<size_t> stale;          // end with this step, dropped_stale
  std::string reason;
};

// Decides for the open step `step`, which trains version step - 1 into version `step`.
//   - Groups whose oldest token is more than max_staleness behind version step - 1 are not trained
//     (checked again here: they may have aged since they were admitted). Those are stale, and so
//     are the groups left over that would be too old at version `step`.
//   - kTrain once groups_per_step usable groups are held: the first by group_index.
//   - With bound.close_step (of this step) the step closes with what is there.
// `train`, `zero_variance` and `stale` are filled only where the action closes the step.
BatchDecision DecideBatch(const std::vector<HeldGroup>& held, uint64_t step, const StepBound& bound,
                          const BatchRules& rules);

}  // namespace temper::learner
