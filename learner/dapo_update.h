#pragma once

// One step of DAPO: from a batch of groups to updated weights. docs/dapo.md tells it in full.
//
//   groups (ascending group_index) -> advantages -> old log-probs if they are recomputed
//     -> minibatches_per_step optimizer steps, each over micro-batches of whole completions
//
// Denominators belong to the mini-batch, so the result does not depend on micro_batch_tokens but
// for the rounding of a sum.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/dapo_objective.h"
#include "learner/policy_trainer.h"
#include "learner/rollout_group.h"
#include "numerics/noise_counters.h"
#include "services/base/stop_token.h"

namespace temper::learner {

struct DapoOptions {
  DapoRules rules;
  uint32_t minibatches_per_step = 1;  // optimizer steps per step
  int64_t micro_batch_tokens = 8192;  // rows of one pass (CutMicroBatches); 0: no bound
};

// What one step did.
struct DapoStepResult {
  ObjectiveStats objective;  // over all optimizer steps; loss is their sum
  // Learner against sampler. The learner's log-probs are those of the old-logprob pass where there
  // is one, else of each token's training pass.
  GapStats gap;
  double entropy_sum = 0.0;          // nats, over unmasked tokens of the training passes
  int optimizer_steps = 0;           // applied
  int empty_minibatches = 0;         // without an unmasked token: no optimizer step
  int non_finite_gradients = 0;      // optimizer steps left out
  double grad_norm = 0.0;            // mean over applied optimizer steps
  double learning_rate = 0.0;        // of the last optimizer step
  numerics::NoiseCounters counters;  // of the learner's own passes
  // Nothing changed the weights.
  bool skipped() const { return optimizer_steps == 0; }
};

// The model's input for neighbouring sequences: one TrainGroup per group, completions in order.
std::vector<model::TrainGroup> ModelInput(std::span<const TrainSequence> sequences);

// Runs the step. groups: in ascending group_index, not empty of completions; they outlive the call.
// Returns: Cancelled if `stop` (may be null) was raised between micro-batches: the weights may then
// be those of an earlier optimizer step and must not be committed; InvalidArgument for options that
// exclude each other (old_logprob current with several mini-batches); the model's errors.
absl::StatusOr<DapoStepResult> RunDapoStep(const std::vector<RolloutGroup>& groups,
                                           const DapoOptions& options, PolicyTrainer* trainer,
                                           base::StopToken* stop);

}  // namespace temper::learner
