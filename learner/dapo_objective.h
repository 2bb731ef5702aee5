#pragma once

// The loss of one mini-batch and its derivative with respect to each token's log-probability.
// Plain numbers: no tensors, no autograd. The tensor side (learner/dapo_update.h) computes
// log-probabilities, asks here for derivatives, and runs them backward. Formulas: docs/dapo.md.
//
//   L = sum over sequences and tokens of  f_seq * w_t * m_t * l_t
//
// m_t mask, l_t clipped surrogate, w_t truncated importance weight (a constant to the gradient),
// f_seq the aggregation's factor over the whole mini-batch. Pure functions, thread-safe.

#include <cstdint>
#include <span>
#include <vector>

#include "learner/rollout_group.h"
#include "numerics/dapo.h"

namespace temper::learner {

// What pi_old is.
enum class OldLogprob {
  kCurrent,     // the training pass itself, detached: ratio 1, one optimizer step per step only
  kRecomputed,  // a pass of its own before the first optimizer step
  kRecorded,    // what the sampler recorded: ratio and clip carry the gap, w_t is 1
};

// How token losses become one number; denominators are of the whole mini-batch.
enum class LossAggregation {
  kTokenMean,         // / unmasked tokens
  kSeqMeanTokenSum,   // / sequences with an unmasked token
  kSeqMeanTokenMean,  // each sequence's token mean, / sequences with an unmasked token
  kConstant,          // / (sequences x max_completion_tokens)
};

struct DapoRules {
  numerics::SurrogateOptions surrogate;
  numerics::ImportanceOptions importance;
  OldLogprob old_logprob = OldLogprob::kCurrent;
  LossAggregation aggregation = LossAggregation::kTokenMean;
  bool norm_by_std = true;
  bool mask_truncated = false;
  int max_completion_tokens = 1;  // L_max of kConstant
};

// One completion to train on. Views into a RolloutGroup that outlives it.
struct TrainSequence {
  uint64_t group_index = 0;
  uint32_t sample = 0;
  std::span<const int32_t> prompt;
  std::span<const int32_t> completion;
  std::span<const float> rollout_logprobs;  // [completion]
  double advantage = 0.0;
  uint64_t version = 0;             // newest version that sampled it
  uint64_t worker = 0;              // that sampled it, as numerics::AqnWorker
  bool masked = false;              // truncated with mask_truncated: in no sum
  std::vector<float> old_logprobs;  // [completion] for kRecomputed, else empty
};

// All completions of a group with their advantages, in sample order.
std::vector<TrainSequence> SequencesOf(const RolloutGroup& group, const DapoRules& rules);

// f_seq for each sequence of a mini-batch; all 0 where no token is unmasked (the optimizer step is
// skipped then). unmasked_tokens: may be null; their number.
std::vector<double> AggregationFactors(std::span<const TrainSequence> sequences,
                                       const DapoRules& rules, int64_t* unmasked_tokens);

// Sums over unmasked tokens of what a step reports. Add in sequence order.
struct ObjectiveStats {
  double loss = 0.0;
  int64_t tokens = 0;
  int64_t clipped_low = 0;
  int64_t clipped_high = 0;
  int64_t dual_clipped = 0;
  int64_t weights_cut = 0;  // importance weights cut at their cap
  double weight_sum = 0.0;
  double weight_sq_sum = 0.0;

  void Merge(const ObjectiveStats& other);
  // (sum w)^2 / (N sum w^2), 0 without tokens.
  double EffectiveSampleShare() const;
};

// dL/dlogprob of each token of one sequence. logprobs, derivatives: [completion]. kRecomputed needs
// sequence.old_logprobs. Adds to `stats`.
void SequenceObjective(const TrainSequence& sequence, std::span<const float> logprobs,
                       double factor, const DapoRules& rules, std::span<float> derivatives,
                       ObjectiveStats* stats);

// The gap between sampler and learner over tokens, d = logprob of the learner - recorded one.
struct GapStats {
  int64_t tokens = 0;
  double abs_sum = 0.0;
  double abs_max = 0.0;
  double k1_sum = 0.0;  // -d: KL(sampler || learner), unbiased
  double k3_sum = 0.0;  // exp(d) - d - 1 >= 0, d within +-kMaxLogRatio

  void Add(std::span<const float> learner_logprobs, std::span<const float> rollout_logprobs);
  double abs_mean() const { return tokens == 0 ? 0.0 : abs_sum / static_cast<double>(tokens); }
  double k1() const { return tokens == 0 ? 0.0 : k1_sum / static_cast<double>(tokens); }
  double k3() const { return tokens == 0 ? 0.0 : k3_sum / static_cast<double>(tokens); }
};

// Where else than at its bound a micro-batch ends, and may end.
struct CutRules {
  bool one_version = false;   // also where the sampling version changes
  bool whole_groups = false;  // between groups only; a group that does not fit has one of its own
};

// Cuts sequences, in order, into runs whose rows stay within micro_batch_tokens: a prompt counts
// once per group and run, as the model computes it, completions are packed without padding. A
// longer sequence has a run of its own. Returns the end of each run. micro_batch_tokens <= 0: no
// bound.
std::vector<size_t> CutMicroBatches(std::span<const TrainSequence> sequences,
                                    int64_t micro_batch_tokens, const CutRules& rules = {});

// Cuts `groups` groups into `parts` neighbouring runs as even as possible (the first ones are
// larger). Returns the end of each run; fewer runs where there are fewer groups.
std::vector<size_t> CutMiniBatches(size_t groups, size_t parts);

}  // namespace temper::learner
