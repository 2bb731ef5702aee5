#pragma once

// The learner's model: log-probs of completions with gradients, under the same operators, in the
// same order per row, as the decode engine. With replayed error and without AQN a log-prob here is
// bit-equal to the one recorded when the token was sampled.
//
// A group's prompt is computed once and shared by its completions, forward and backward. Logits
// never exist for all tokens: linear + log-softmax + gather run in chunks of rows, both ways.
//
// Error of the backward pass (docs/numerics.md, "Hardware error"): with D of the forward draw (1
// with `straight_through`, and for errors that are not linear), g_x = (g D) W and g_W = (g D)^T x;
// g_x then gets its own error keyed by token. At the positions of a prompt it acts on the sum over
// the completions of the pass; so that this is the group's sum, a pass holds whole groups wherever
// that error is not linear (for a linear one it makes no difference). The error of g_W acts once
// per optimizer step on the accumulated gradient: ApplyGradWeightError. Under injection x and W are
// the operands as they were multiplied: docs/numerics.md, "Injection".

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/parameters.h"
#include "numerics/aqn_draw.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::model {

struct TrainCompletion {
  uint32_t sample = 0;             // its lane is sample + 1
  std::vector<int32_t> token_ids;  // with the stop id; may be empty
};

struct TrainGroup {
  uint64_t group_index = 0;
  std::vector<int32_t> prompt_ids;  // at least one
  std::vector<TrainCompletion> completions;
  uint64_t worker = 0;  // that sampled it, as numerics::AqnWorker; AQN per worker reads it
};

// How a pass errs.
struct TrainNoise {
  const numerics::NoisePolicy* policy = nullptr;  // null: no error. Outlives the pass and backward
  // kTrain, kOldLogprob, kRefLogprob, or kRollout / kEval to reproduce what the sampler computed.
  numerics::Phase phase = numerics::Phase::kTrain;
  // The forward's draws: kSame re-creates those of the rollout, kFresh draws new ones, kNone has
  // none. g_x errs in phase kTrain whatever this says.
  numerics::LearnerNoise draw = numerics::LearnerNoise::kSame;
  uint64_t run_seed = 0;        // in phase kEval: the noise seed
  uint64_t optimizer_step = 0;  // keys fresh draws and g_x
  uint64_t policy_version = 0;  // of the weights: keys the injected error of weights
};

struct LogProbOptions {
  double temperature = 1.0;  // > 0: log softmax(logits / temperature)
  TrainNoise noise;
  numerics::VersionAqn aqn;  // in the norms of this pass, as it was when its groups were sampled
  bool gradients = true;     // false: no graph is kept (old_logprob, probes)
};

// One entry per completion token: groups in order, their completions in order, tokens in order.
struct LogProbs {
  at::Tensor logprobs;  // [tokens] float32; carries the graph if gradients were asked for
  at::Tensor entropy;   // [tokens] float32, nats, of the same distribution; no gradient
};

struct TrainOptions {
  int threads = 1;          // >= 1, a configured constant; does not change results
  int64_t head_rows = 256;  // rows whose logits exist at one time; does not change log-probs
};

// Owns the parameters that are trained, packed copies of them, and its threads.
// Thread-compatible: one thread at a time. Destroy after every graph made by it.
class TrainModel final {
 public:
  // Takes a copy of `parameters`, deep of what is trained (CloneParameters). Errors:
  // InvalidArgument.
  static absl::StatusOr<std::unique_ptr<TrainModel>> Create(const Parameters& parameters,
                                                            TrainOptions options);
  ~TrainModel();

  // The master weights. Those that are trained (Parameters::trained) are leaves with requires_grad;
  // .grad is defined after the first Backward. An optimizer writes to them and then calls
  // ParametersChanged.
  Parameters& parameters();
  const Parameters& parameters() const;
  // Packs what is trained anew at the next pass, and perturbs anew what errs of it.
  void ParametersChanged();

  // Log-probs of every completion token given its prompt. Forward counts of the pass are added to
  // `counters` (may be null) before it returns.
  // Errors: InvalidArgument for ids out of range, an empty prompt, a temperature <= 0;
  // Unimplemented for a policy that CheckPolicySupported refuses; ResourceExhausted without
  // memory.
  absl::StatusOr<LogProbs> Forward(std::span<const TrainGroup> groups,
                                   const LogProbOptions& options,
                                   numerics::NoiseCounters* counters);

  // Adds d(sum of weight[t] * logprobs[t])/d(parameter) to every trained parameter's .grad, with
  // the errors of g_x; backward counts of g_x are added to `counters` (may be null). weight:
  // [tokens], the derivative of the loss by each log-prob. Frees the graph. For losses written in
  // autograd use logprobs directly; the counts of such a backward pass wait for the next
  // TakeBackwardCounters. Errors: InvalidArgument if sizes differ or there is no graph.
  absl::Status Backward(const LogProbs& pass, std::span<const float> weight,
                        numerics::NoiseCounters* counters);

  // Counts of backward passes since the last call, and their removal.
  numerics::NoiseCounters TakeBackwardCounters();

  // Sets all .grad to zero (and forgets what ApplyGradWeightError holds back).
  void ZeroGrad();

  // Once per optimizer step, after the last Backward and before norm clipping: the error of g_W on
  // the accumulated gradient of every trained linear that the policy names in (train, backward),
  // keyed by (run seed, optimizer step, element of the whole weight). Where lm_head is tied, it
  // acts on the part of the gradient that came through lm_head. Counts into `counters` (may be
  // null).
  absl::Status ApplyGradWeightError(const TrainNoise& noise, numerics::NoiseCounters* counters);

 private:
  struct Impl;
  explicit TrainModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
