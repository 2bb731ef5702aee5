#pragma once

// The scalar mathematics of a DAPO update: advantages, the clipped surrogate and its derivative,
// importance weights, divergence estimators. No tensors and no autograd: the learner calls these
// per token and hands the derivative to its own backward pass. Pure, thread-safe. Formulas and
// papers: docs/numerics.md, "DAPO".

#include <cstdint>
#include <span>
#include <vector>

namespace temper::numerics {

// Log-ratios are clamped to +-kMaxLogRatio before exp, so that no weight overflows.
inline constexpr double kMaxLogRatio = 20.0;
// Added to the standard deviation of a group's rewards.
inline constexpr double kAdvantageEpsilon = 1e-6;

struct GroupAdvantages {
  std::vector<double> advantages;  // one per sample, in the order of the rewards
  double mean = 0.0;
  double std = 0.0;           // with n - 1; 0 for n < 2
  bool zero_variance = true;  // std is 0 or n = 1: all advantages are 0
};
// A_i = (R_i - mean) / (std + 1e-6), without the division where norm_by_std is false.
GroupAdvantages ComputeGroupAdvantages(std::span<const double> rewards, bool norm_by_std = true);

// excess = tokens - (max_tokens - cache_tokens); clamp(-excess / cache_tokens, -1, 0) * factor.
struct OverlongOptions {
  int64_t max_tokens = 0;    // L_max, completion tokens with end-of-sequence
  int64_t cache_tokens = 0;  // L_cache, the soft range before L_max; 0 switches the penalty off
  double factor = 0.0;       // >= 0
};
// A number in [-factor, 0]. An empty completion has 0.
double OverlongPenalty(int64_t completion_tokens, const OverlongOptions& options);

struct SurrogateOptions {
  double clip_ratio_low = 0.2;
  double clip_ratio_high = 0.28;
  double dual_clip = 10.0;  // c, > 1; 0 switches it off
};
struct Surrogate {
  double loss = 0.0;          // l_t, before importance weight and mask
  double derivative = 0.0;    // d l_t / d log pi; 0 where clipped
  double ratio = 1.0;         // exp(clamp(log pi - log pi_old))
  bool clipped_low = false;   // A < 0 and the ratio's clip at 1 - low decides
  bool clipped_high = false;  // A > 0 and the ratio's clip at 1 + high decides
  bool dual_clipped = false;  // A < 0 and the bound -A c decides
};
// l = max(-A r, -A clip(r, 1 - low, 1 + high)); where A < 0: l = min(l, -A c).
Surrogate SurrogateLoss(double logprob, double old_logprob, double advantage,
                        const SurrogateOptions& options);

enum class ImportanceMode { kNone, kToken, kSequence };
struct ImportanceOptions {
  ImportanceMode mode = ImportanceMode::kToken;
  double cap = 2.0;  // C, > 0
};
// Truncated importance weights of one sequence, constants to the gradient.
//   token:    w_t = min(exp(clamp(old_t - rollout_t)), C)
//   sequence: w = min(exp(clamp(sum of (old_t - rollout_t) over the mask)), C), on all tokens
// All spans have one entry per token; mask 0 or 1; weights of masked-out tokens are 0. Returns the
// number of tokens whose weight was cut at C.
int64_t ImportanceWeights(std::span<const float> old_logprobs,
                          std::span<const float> rollout_logprobs, std::span<const uint8_t> mask,
                          const ImportanceOptions& options, std::span<float> weights);

// (sum w)^2 / (N sum w^2) over the non-zero mask; 1 for equal weights, 0 for none.
double EffectiveSampleSize(std::span<const float> weights, std::span<const uint8_t> mask);

// Estimators of KL(pi || pi_ref) per token, with d = clamp(log pi_ref - log pi, +-20):
// k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1; k3+ has k3's value and k2's gradient.
enum class KlEstimator { kK1, kK2, kK3, kK3Plus };
struct KlTerm {
  double value = 0.0;
  double derivative = 0.0;  // with respect to log pi; 0 where d is clamped
};
KlTerm KlDivergence(double logprob, double reference_logprob, KlEstimator estimator);

// lr * min(1, (step + 1) / warmup_steps) for optimizer step 0, 1, ...; lr where warmup_steps <= 0.
double WarmedLearningRate(double learning_rate, int64_t optimizer_step, int64_t warmup_steps);

}  // namespace temper::numerics
