#pragma once

// The policy that is being trained: weights, optimizer and counters of one run, and the optimizer
// step that both losses share.
//
//   trainer->BeginOptimizerStep();
//   for each micro-batch: Forward, Backward        gradients add up
//   trainer->FinishOptimizerStep(&counters)        error of g_W, clip, AdamW
//
// The error of g_W acts once, on the sum over all micro-batches, so the result does not depend on
// how the mini-batch was cut.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/adamw.h"
#include "learner/checkpoint.h"
#include "model/train_forward.h"
#include "numerics/aqn.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"

namespace temper::learner {

struct PolicyTrainerOptions {
  AdamWOptions adamw;
  double learning_rate = 1e-4;
  double max_grad_norm = 1.0;  // global; <= 0: no clipping
  int64_t warmup_steps = 0;    // optimizer steps
  int threads = 1;
  double temperature = 1.0;  // of the distribution that is trained: the sampler's
  uint64_t run_seed = 1;
  numerics::NoisePolicy noise;
  numerics::AqnPlan aqn;  // acts here only with aqn.in_learner
};

struct OptimizerStepResult {
  bool applied = false;    // false: a gradient was not finite, weights are unchanged
  double grad_norm = 0.0;  // before clipping, after the error of g_W
  double learning_rate = 0.0;
};

// What Replay takes of how `version` sampled; with both true, all of it.
struct SamplerPass {
  uint64_t version = 0;
  bool error = true;        // the rollout's error, by its keys
  bool rollout_aqn = true;  // the version's AQN; false: the norms as the learner has them
};

// Thread-compatible: one thread at a time. A fixed configuration and input give fixed bits.
class PolicyTrainer final {
 public:
  // Copies what of `parameters` is trained; moments are zero. Errors: those of TrainModel::Create,
  // and Unimplemented for a noise policy the model does not support.
  static absl::StatusOr<std::unique_ptr<PolicyTrainer>> Create(const model::Parameters& parameters,
                                                               PolicyTrainerOptions options);

  // Continues from a checkpoint whose weights were given to Create. DataLoss if the moments are not
  // those of the parameters.
  absl::Status Restore(std::vector<AdamWMoments> moments, const TrainerState& state);

  const model::Parameters& parameters() const { return model_->parameters(); }
  const AdamW& optimizer() const { return adamw_; }
  const TrainerState& state() const { return state_; }
  const PolicyTrainerOptions& options() const { return options_; }

  // A step was closed (trained or not): counts it.
  void CloseStep(bool skipped);

  void BeginOptimizerStep();

  // Log-probs of all completion tokens of `groups`, in order. phase: kTrain keeps the graph for
  // Backward; kOldLogprob does not. sampled_version: names the AQN draw where AQN acts here too.
  // Forward counts go to `counters`.
  absl::StatusOr<model::LogProbs> Forward(std::span<const model::TrainGroup> groups,
                                          numerics::Phase phase, uint64_t sampled_version,
                                          numerics::NoiseCounters* counters);
  // Log-probs as a sampler computes them, under the weights that are trained or those of `other`
  // (may be null). Keeps no graph, counts nothing, changes nothing.
  absl::StatusOr<model::LogProbs> Replay(std::span<const model::TrainGroup> groups,
                                         const SamplerPass& sampler, model::TrainModel* other);
  // Adds the gradient of sum(weight * logprob). weight: one per completion token.
  absl::Status Backward(const model::LogProbs& pass, std::span<const float> weight,
                        numerics::NoiseCounters* counters);
  absl::StatusOr<OptimizerStepResult> FinishOptimizerStep(numerics::NoiseCounters* counters);

 private:
  PolicyTrainer(std::unique_ptr<model::TrainModel> model, PolicyTrainerOptions options);
  model::TrainNoise NoiseFor(numerics::Phase phase) const;
  numerics::VersionAqn AqnOf(uint64_t version) const;
  // Values and gradients of all that is trained, in its order.
  absl::StatusOr<std::vector<ParameterSpan>> Spans();

  const PolicyTrainerOptions options_;
  const std::unique_ptr<model::TrainModel> model_;
  AdamW adamw_;
  TrainerState state_;
};

// The numbers of a contiguous float32 CPU tensor of log-probs or entropies.
std::span<const float> FloatsOf(const at::Tensor& tensor);

}  // namespace temper::learner
