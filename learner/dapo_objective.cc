#include "learner/dapo_objective.h"

#include <algorithm>
#include <cmath>

#include "numerics/aqn_draw.h"
#include "services/base/check.h"

namespace temper::learner {

std::vector<TrainSequence> SequencesOf(const RolloutGroup& group, const DapoRules& rules) {
  std::vector<double> rewards;
  for (const SampledCompletion& completion : group.completions) {
    rewards.push_back(completion.score.reward);
  }
  const numerics::GroupAdvantages advantages =
      numerics::ComputeGroupAdvantages(rewards, rules.norm_by_std);
  const uint64_t worker = numerics::AqnWorker(group.worker);
  std::vector<TrainSequence> sequences;
  for (size_t i = 0; i < group.completions.size(); ++i) {
    const SampledCompletion& completion = group.completions[i];
    sequences.push_back({.group_index = group.group_index,
                         .sample = static_cast<uint32_t>(i),
                         .prompt = group.prompt_token_ids,
                         .completion = completion.token_ids,
                         .rollout_logprobs = completion.rollout_logprobs,
                         .advantage = advantages.advantages[i],
                         .version = group.newest_version,
                         .worker = worker,
                         .masked = rules.mask_truncated && completion.truncated});
  }
  return sequences;
}

std::vector<double> AggregationFactors(std::span<const TrainSequence> sequences,
                                       const DapoRules& rules, int64_t* unmasked_tokens) {
  int64_t tokens = 0;
  int64_t live = 0;
  for (const TrainSequence& sequence : sequences) {
    if (sequence.masked || sequence.completion.empty()) continue;
    tokens += static_cast<int64_t>(sequence.completion.size());
    ++live;
  }
  if (unmasked_tokens != nullptr) *unmasked_tokens = tokens;
  std::vector<double> factors(sequences.size(), 0.0);
  if (tokens == 0) return factors;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].masked || sequences[i].completion.empty()) continue;
    const double length = static_cast<double>(sequences[i].completion.size());
    switch (rules.aggregation) {
      case LossAggregation::kTokenMean:
        factors[i] = 1.0 / static_cast<double>(tokens);
        break;
      case LossAggregation::kSeqMeanTokenSum:
        factors[i] = 1.0 / static_cast<double>(live);
        break;
      case LossAggregation::kSeqMeanTokenMean:
        factors[i] = 1.0 / (static_cast<double>(live) * length);
        break;
      case LossAggregation::kConstant:
        factors[i] = 1.0 / (static_cast<double>(sequences.size()) *
                            static_cast<double>(rules.max_completion_tokens));
        break;
    }
  }
  return factors;
}

void ObjectiveStats::Merge(const ObjectiveStats& other) {
  loss += other.loss;
  tokens += other.tokens;
  clipped_low += other.clipped_low;
  clipped_high += other.clipped_high;
  dual_clipped += other.dual_clipped;
  weights_cut += other.weights_cut;
  weight_sum += other.weight_sum;
  weight_sq_sum += other.weight_sq_sum;
}

double ObjectiveStats::EffectiveSampleShare() const {
  if (tokens == 0 || weight_sq_sum <= 0.0) return 0.0;
  return weight_sum * weight_sum / (static_cast<double>(tokens) * weight_sq_sum);
}

void SequenceObjective(const TrainSequence& sequence, std::span<const float> logprobs,
                       double factor, const DapoRules& rules, std::span<float> derivatives,
                       ObjectiveStats* stats) {
  const size_t tokens = sequence.completion.size();
  TEMPER_CHECK(logprobs.size() == tokens && derivatives.size() == tokens, "one number per token");
  if (sequence.masked || tokens == 0) {
    std::fill(derivatives.begin(), derivatives.end(), 0.0f);
    return;
  }
  std::span<const float> old_logprobs = logprobs;
  if (rules.old_logprob == OldLogprob::kRecomputed) old_logprobs = sequence.old_logprobs;
  if (rules.old_logprob == OldLogprob::kRecorded) old_logprobs = sequence.rollout_logprobs;
  TEMPER_CHECK(old_logprobs.size() == tokens, "one old log-probability per token");

  const std::vector<uint8_t> mask(tokens, 1);
  std::vector<float> weights(tokens);
  stats->weights_cut += numerics::ImportanceWeights(old_logprobs, sequence.rollout_logprobs, mask,
                                                    rules.importance, weights);
  for (size_t t = 0; t < tokens; ++t) {
    const numerics::Surrogate surrogate =
        numerics::SurrogateLoss(logprobs[t], old_logprobs[t], sequence.advantage, rules.surrogate);
    const double weight = factor * weights[t];
    derivatives[t] = static_cast<float>(weight * surrogate.derivative);
    stats->loss += weight * surrogate.loss;
    stats->clipped_low += surrogate.clipped_low ? 1 : 0;
    stats->clipped_high += surrogate.clipped_high ? 1 : 0;
    stats->dual_clipped += surrogate.dual_clipped ? 1 : 0;
    stats->weight_sum += weights[t];
    stats->weight_sq_sum += static_cast<double>(weights[t]) * weights[t];
  }
  stats->tokens += static_cast<int64_t>(tokens);
}

void GapStats::Add(std::span<const float> learner_logprobs,
                   std::span<const float> rollout_logprobs) {
  TEMPER_CHECK(learner_logprobs.size() == rollout_logprobs.size(), "one number per token");
  for (size_t t = 0; t < learner_logprobs.size(); ++t) {
    const double gap =
        static_cast<double>(learner_logprobs[t]) - static_cast<double>(rollout_logprobs[t]);
    const double d = std::clamp(gap, -numerics::kMaxLogRatio, numerics::kMaxLogRatio);
    abs_sum += std::fabs(gap);
    abs_max = std::max(abs_max, std::fabs(gap));
    k1_sum -= d;
    k3_sum += std::expm1(d) - d;
  }
  tokens += static_cast<int64_t>(learner_logprobs.size());
}

namespace {

// Completion tokens of the group that begins here.
int64_t GroupTokens(std::span<const TrainSequence> sequences) {
  int64_t tokens = 0;
  for (const TrainSequence& sequence : sequences) {
    if (sequence.group_index != sequences.front().group_index) break;
    tokens += static_cast<int64_t>(sequence.completion.size());
  }
  return tokens;
}

}  // namespace

std::vector<size_t> CutMicroBatches(std::span<const TrainSequence> sequences,
                                    int64_t micro_batch_tokens, const CutRules& rules) {
  std::vector<size_t> ends;
  int64_t rows = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TrainSequence& next = sequences[i];
    const int64_t prompt = static_cast<int64_t>(next.prompt.size());
    const bool first = i == 0;
    const bool shares_prompt = !first && sequences[i - 1].group_index == next.group_index;
    if (rules.whole_groups && shares_prompt) continue;  // came in with the group's first
    const int64_t completions = rules.whole_groups ? GroupTokens(sequences.subspan(i))
                                                   : static_cast<int64_t>(next.completion.size());
    const int64_t more = completions + (shares_prompt ? 0 : prompt);
    const bool full = micro_batch_tokens > 0 && rows + more > micro_batch_tokens;
    const bool other_version =
        rules.one_version && !first && sequences[i - 1].version != next.version;
    if (!first && (full || other_version)) {
      ends.push_back(i);
      rows = prompt + completions;
    } else {
      rows += more;
    }
  }
  if (!sequences.empty()) ends.push_back(sequences.size());
  return ends;
}

std::vector<size_t> CutMiniBatches(size_t groups, size_t parts) {
  std::vector<size_t> ends;
  const size_t used = std::min(groups, std::max<size_t>(parts, 1));
  size_t end = 0;
  for (size_t part = 0; part < used; ++part) {
    end += groups / used + (part < groups % used ? 1 : 0);
    ends.push_back(end);
  }
  return ends;
}

}  // namespace temper::learner
