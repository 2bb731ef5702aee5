#pragma once

// One step's line of metrics.jsonl. Everything in it is a function of configuration, seed and the
// groups that were closed, apart from the fields whose names end in _seconds or _per_second: two
// equal synchronous runs write equal lines but for those and the timeline.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "learner/gap_split.h"
#include "learner/group_store.h"
#include "learner/weight_quantization.h"
#include "numerics/noise_counters.h"

namespace temper::learner {

// What the closed groups (trained and of zero variance) look like.
struct RolloutSummary {
  uint64_t groups_trained = 0;
  uint64_t groups_zero_variance = 0;
  uint64_t groups_stale = 0;
  uint64_t groups_overlong_only = 0;  // equal accuracies, told apart by overlong penalties only
  uint64_t completions = 0;
  uint64_t tokens_generated = 0;
  double reward_mean = 0.0;          // over all completions of trained and zero-variance groups
  double reward_mean_trained = 0.0;  // of trained groups alone
  double accuracy_raw = 0.0;
  double accuracy_strict = 0.0;
  double accuracy_flexible = 0.0;
  double accuracy_numeric = 0.0;
  double format_rate = 0.0;
  double completion_tokens_mean = 0.0;
  double truncated_ratio = 0.0;
  uint64_t staleness_max = 0;   // of trained groups, in steps
  double staleness_mean = 0.0;  // of trained groups, in steps
};

// policy_version: the one that is being trained (step - 1).
RolloutSummary SummarizeRollouts(const ClosedBatch& batch, uint64_t policy_version);

// One step, complete.
struct StepRecord {
  uint64_t step = 0;
  uint64_t timeline = 0;
  bool skipped = false;
  std::string skip_reason;  // empty unless skipped
  RolloutSummary rollouts;
  double sigma = 0.0;  // AQN of the version that is trained, as planned
  // From the update; zero where nothing was trained.
  uint64_t tokens_trained = 0;
  double loss = 0.0;
  double entropy = 0.0;
  double clip_fraction_low = 0.0;
  double clip_fraction_high = 0.0;
  double dual_clip_fraction = 0.0;
  double grad_norm = 0.0;
  double learning_rate = 0.0;
  uint64_t optimizer_steps = 0;
  uint64_t non_finite_gradients = 0;
  double logprob_abs_diff_mean = 0.0;
  double logprob_abs_diff_max = 0.0;
  double kl_sampler_learner = 0.0;     // k1
  double kl_sampler_learner_k3 = 0.0;  // k3
  double effective_sample_size = 0.0;  // share, 0..1
  double importance_cut_ratio = 0.0;
  std::optional<GapSplit> gap_probe;  // of a step that was probed
  double probe_seconds = 0.0;
  numerics::NoiseCounters counters;  // of rollouts and learner together
  // Of the weights this step makes; empty unless a checkpoint of them was due.
  std::vector<QuantizationSummary> quantization;
  // Of the version this step makes; with adapters of the base, which stays, and of the adapters.
  uint64_t base_weights_hash = 0;
  uint64_t adapter_weights_hash = 0;  // 0: the whole model is trained
  double update_seconds = 0.0;
  double wait_seconds = 0.0;
  double generate_seconds = 0.0;  // sum over groups
  double step_seconds = 0.0;      // from the end of the step before
};

// One JSON object without a line end. Numbers that are not finite become null.
std::string MetricsJson(const StepRecord& record);

}  // namespace temper::learner
