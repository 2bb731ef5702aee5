#include "numerics/dapo.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "numerics/statistics.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

double ClampLogRatio(double d) { return std::clamp(d, -kMaxLogRatio, kMaxLogRatio); }

}  // namespace

GroupAdvantages ComputeGroupAdvantages(std::span<const double> rewards, bool norm_by_std) {
  GroupAdvantages result;
  result.advantages.assign(rewards.size(), 0.0);
  result.mean = Mean(rewards);
  // Equal rewards have no spread, whatever the rounding of their mean.
  result.zero_variance =
      std::adjacent_find(rewards.begin(), rewards.end(), std::not_equal_to<>()) == rewards.end();
  if (result.zero_variance) return result;
  result.std = StandardDeviation(rewards);
  const double divisor = norm_by_std ? result.std + kAdvantageEpsilon : 1.0;
  for (size_t i = 0; i < rewards.size(); ++i) {
    result.advantages[i] = (rewards[i] - result.mean) / divisor;
  }
  return result;
}

double OverlongPenalty(int64_t completion_tokens, const OverlongOptions& options) {
  if (options.cache_tokens <= 0 || completion_tokens <= 0) return 0.0;
  const int64_t excess = completion_tokens - (options.max_tokens - options.cache_tokens);
  const double share = -static_cast<double>(excess) / static_cast<double>(options.cache_tokens);
  return std::clamp(share, -1.0, 0.0) * options.factor;
}

Surrogate SurrogateLoss(double logprob, double old_logprob, double advantage,
                        const SurrogateOptions& options) {
  const double d = logprob - old_logprob;
  Surrogate result;
  result.ratio = std::exp(ClampLogRatio(d));
  const double clipped =
      std::clamp(result.ratio, 1.0 - options.clip_ratio_low, 1.0 + options.clip_ratio_high);
  const double free_loss = -advantage * result.ratio;
  const double clipped_loss = -advantage * clipped;
  if (clipped_loss > free_loss) {
    result.loss = clipped_loss;
    result.clipped_high = advantage > 0.0;
    result.clipped_low = advantage < 0.0;
  } else {
    result.loss = free_loss;
    result.derivative = std::abs(d) < kMaxLogRatio ? free_loss : 0.0;  // dr / d log pi = r
  }
  if (advantage < 0.0 && options.dual_clip > 0.0) {
    const double bound = -advantage * options.dual_clip;
    if (result.loss > bound) {
      result.loss = bound;
      result.derivative = 0.0;
      result.dual_clipped = true;
    }
  }
  return result;
}

int64_t ImportanceWeights(std::span<const float> old_logprobs,
                          std::span<const float> rollout_logprobs, std::span<const uint8_t> mask,
                          const ImportanceOptions& options, std::span<float> weights) {
  TEMPER_CHECK(old_logprobs.size() == weights.size() && rollout_logprobs.size() == weights.size() &&
                   mask.size() == weights.size(),
               "one entry per token");
  double sequence = 0.0;
  if (options.mode == ImportanceMode::kSequence) {
    for (size_t t = 0; t < weights.size(); ++t) {
      if (mask[t] != 0) sequence += static_cast<double>(old_logprobs[t]) - rollout_logprobs[t];
    }
  }
  int64_t cut = 0;
  for (size_t t = 0; t < weights.size(); ++t) {
    weights[t] = 0.0f;
    if (mask[t] == 0) continue;
    if (options.mode == ImportanceMode::kNone) {
      weights[t] = 1.0f;
      continue;
    }
    const double d = options.mode == ImportanceMode::kSequence
                         ? sequence
                         : static_cast<double>(old_logprobs[t]) - rollout_logprobs[t];
    const double weight = std::exp(ClampLogRatio(d));
    if (weight > options.cap) ++cut;
    weights[t] = static_cast<float>(std::min(weight, options.cap));
  }
  return cut;
}

double EffectiveSampleSize(std::span<const float> weights, std::span<const uint8_t> mask) {
  TEMPER_CHECK(mask.size() == weights.size(), "one entry per token");
  double sum = 0.0, sum_sq = 0.0;
  int64_t count = 0;
  for (size_t t = 0; t < weights.size(); ++t) {
    if (mask[t] == 0) continue;
    sum += weights[t];
    sum_sq += static_cast<double>(weights[t]) * weights[t];
    ++count;
  }
  return sum_sq > 0.0 ? sum * sum / (static_cast<double>(count) * sum_sq) : 0.0;
}

KlTerm KlDivergence(double logprob, double reference_logprob, KlEstimator estimator) {
  const double unclamped = reference_logprob - logprob;
  const double d = ClampLogRatio(unclamped);
  const double slope = std::abs(unclamped) < kMaxLogRatio ? 1.0 : 0.0;
  // d falls by one where log pi rises by one.
  switch (estimator) {
    case KlEstimator::kK1:
      return {-d, slope};
    case KlEstimator::kK2:
      return {0.5 * d * d, -d * slope};
    case KlEstimator::kK3:
      return {std::expm1(d) - d, -std::expm1(d) * slope};
    case KlEstimator::kK3Plus:
      return {std::expm1(d) - d, -d * slope};
  }
  return {};
}

double WarmedLearningRate(double learning_rate, int64_t optimizer_step, int64_t warmup_steps) {
  if (warmup_steps <= 0) return learning_rate;
  return learning_rate *
         std::min(1.0, static_cast<double>(optimizer_step + 1) / static_cast<double>(warmup_steps));
}

}  // namespace temper::numerics
