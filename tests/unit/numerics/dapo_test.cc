#include "numerics/dapo.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace temper::numerics {
namespace {

TEST(GroupAdvantages, NormaliseByTheSampleDeviation) {
  // Mean 0.25, squares 3 * 0.0625 + 0.5625 = 0.75, std sqrt(0.75 / 3) = 0.5.
  const std::vector<double> rewards = {0, 1, 0, 0};
  const GroupAdvantages group = ComputeGroupAdvantages(rewards);
  EXPECT_FALSE(group.zero_variance);
  EXPECT_DOUBLE_EQ(group.mean, 0.25);
  EXPECT_DOUBLE_EQ(group.std, 0.5);
  EXPECT_DOUBLE_EQ(group.advantages[1], 0.75 / 0.500001);
  EXPECT_DOUBLE_EQ(group.advantages[0], -0.25 / 0.500001);
  EXPECT_DOUBLE_EQ(ComputeGroupAdvantages(rewards, false).advantages[1], 0.75);
}

TEST(GroupAdvantages, AreZeroWithoutSpread) {
  for (const std::vector<double>& rewards :
       {std::vector<double>{0.1, 0.1, 0.1}, std::vector<double>{1.0}, std::vector<double>{}}) {
    const GroupAdvantages group = ComputeGroupAdvantages(rewards);
    EXPECT_TRUE(group.zero_variance);
    EXPECT_EQ(group.std, 0.0);
    for (const double a : group.advantages) EXPECT_EQ(a, 0.0);
  }
}

TEST(OverlongPenalty, FallsLinearlyOverTheCache) {
  const OverlongOptions options = {.max_tokens = 1024, .cache_tokens = 256, .factor = 0.5};
  EXPECT_EQ(OverlongPenalty(0, options), 0.0);
  EXPECT_EQ(OverlongPenalty(768, options), 0.0);
  EXPECT_DOUBLE_EQ(OverlongPenalty(896, options), -0.25);
  EXPECT_DOUBLE_EQ(OverlongPenalty(1024, options), -0.5);
  EXPECT_DOUBLE_EQ(OverlongPenalty(5000, options), -0.5);
  EXPECT_EQ(OverlongPenalty(900, {.max_tokens = 1024}), 0.0);
}

TEST(Surrogate, HasTheHandWorkedBranches) {
  const SurrogateOptions options = {.clip_ratio_low = 0.2, .clip_ratio_high = 0.28, .dual_clip = 3};
  // On policy: r = 1, l = -A, dl = -A.
  Surrogate s = SurrogateLoss(-1.0, -1.0, 2.0, options);
  EXPECT_DOUBLE_EQ(s.loss, -2.0);
  EXPECT_DOUBLE_EQ(s.derivative, -2.0);
  // A > 0 above the clip: no more reward for going on.
  s = SurrogateLoss(std::log(1.5), 0.0, 2.0, options);
  EXPECT_DOUBLE_EQ(s.loss, -2.56);
  EXPECT_EQ(s.derivative, 0.0);
  EXPECT_TRUE(s.clipped_high);
  // A > 0 below the clip: still pulled back up.
  s = SurrogateLoss(std::log(0.5), 0.0, 2.0, options);
  EXPECT_NEAR(s.loss, -1.0, 1e-15);
  EXPECT_NEAR(s.derivative, -1.0, 1e-15);
  EXPECT_FALSE(s.clipped_low);
  // A < 0 below the clip: flat.
  s = SurrogateLoss(std::log(0.5), 0.0, -2.0, options);
  EXPECT_DOUBLE_EQ(s.loss, 1.6);
  EXPECT_EQ(s.derivative, 0.0);
  EXPECT_TRUE(s.clipped_low);
  // A < 0 far above: the dual clip.
  s = SurrogateLoss(std::log(5.0), 0.0, -2.0, options);
  EXPECT_DOUBLE_EQ(s.loss, 6.0);
  EXPECT_EQ(s.derivative, 0.0);
  EXPECT_TRUE(s.dual_clipped);
  // A < 0, above the clip but under the bound: the free branch.
  s = SurrogateLoss(std::log(2.0), 0.0, -2.0, options);
  EXPECT_NEAR(s.loss, 4.0, 1e-14);
  EXPECT_NEAR(s.derivative, 4.0, 1e-14);
  EXPECT_FALSE(s.dual_clipped);
}

TEST(Surrogate, DerivativeEqualsFiniteDifferencesAwayFromKinks) {
  const SurrogateOptions options;
  constexpr double kStep = 1e-6;
  for (double advantage : {-2.0, -0.3, 0.0, 0.7, 1.5}) {
    for (double d = -25.0; d <= 25.0; d += 0.137) {
      const double numeric = (SurrogateLoss(d + kStep, 0.0, advantage, options).loss -
                              SurrogateLoss(d - kStep, 0.0, advantage, options).loss) /
                             (2 * kStep);
      const double exact = SurrogateLoss(d, 0.0, advantage, options).derivative;
      EXPECT_NEAR(exact, numeric, 1e-6 * std::max(1.0, std::abs(exact))) << advantage << " " << d;
    }
  }
}

TEST(Surrogate, NeverOverflows) {
  const Surrogate s = SurrogateLoss(0.0, -1000.0, 1.0, {});
  EXPECT_TRUE(std::isfinite(s.loss));
  EXPECT_DOUBLE_EQ(s.ratio, std::exp(20.0));
  EXPECT_EQ(s.derivative, 0.0);
}

TEST(ImportanceWeights, TruncatePerToken) {
  const std::vector<float> now = {-1.0f, -1.0f, -1.0f, -1.0f};
  const std::vector<float> rollout = {-1.0f, -3.0f, -0.5f, -9.0f};
  const std::vector<uint8_t> mask = {1, 1, 1, 0};
  std::vector<float> weights(4);
  EXPECT_EQ(ImportanceWeights(now, rollout, mask, {}, weights), 1);
  EXPECT_EQ(weights[0], 1.0f);
  EXPECT_EQ(weights[1], 2.0f);
  EXPECT_FLOAT_EQ(weights[2], std::exp(-0.5f));
  EXPECT_EQ(weights[3], 0.0f);
}

TEST(ImportanceWeights, SequenceModeGivesOneWeightToAllTokens) {
  const std::vector<float> now = {-1.0f, -1.0f, -1.0f}, rollout = {-1.5f, -0.75f, -9.0f};
  const std::vector<uint8_t> mask = {1, 1, 0};
  std::vector<float> weights(3);
  EXPECT_EQ(ImportanceWeights(now, rollout, mask, {.mode = ImportanceMode::kSequence}, weights), 0);
  EXPECT_FLOAT_EQ(weights[0], std::exp(0.25f));
  EXPECT_FLOAT_EQ(weights[1], std::exp(0.25f));
  EXPECT_EQ(weights[2], 0.0f);
  ImportanceWeights(now, rollout, mask, {.mode = ImportanceMode::kNone}, weights);
  EXPECT_EQ(weights, (std::vector<float>{1, 1, 0}));
}

TEST(EffectiveSampleSize, IsOneForEqualWeightsAndLessOtherwise) {
  const std::vector<uint8_t> mask = {1, 1, 0};
  EXPECT_DOUBLE_EQ(EffectiveSampleSize(std::vector<float>{2, 2, 9}, mask), 1.0);
  EXPECT_DOUBLE_EQ(EffectiveSampleSize(std::vector<float>{1, 3, 9}, mask), 16.0 / 20);
  EXPECT_EQ(EffectiveSampleSize(std::vector<float>{0, 0, 0}, mask), 0.0);
}

TEST(KlDivergence, HasTheValuesAndGradientsOfItsEstimators) {
  const double d = -0.5;  // log pi_ref - log pi
  EXPECT_DOUBLE_EQ(KlDivergence(-1.0, -1.5, KlEstimator::kK1).value, 0.5);
  EXPECT_DOUBLE_EQ(KlDivergence(-1.0, -1.5, KlEstimator::kK2).value, 0.125);
  EXPECT_NEAR(KlDivergence(-1.0, -1.5, KlEstimator::kK3).value, std::exp(d) - d - 1, 1e-15);
  EXPECT_EQ(KlDivergence(-1.0, -1.5, KlEstimator::kK3Plus).value,
            KlDivergence(-1.0, -1.5, KlEstimator::kK3).value);
  EXPECT_EQ(KlDivergence(-1.0, -1.5, KlEstimator::kK3Plus).derivative,
            KlDivergence(-1.0, -1.5, KlEstimator::kK2).derivative);
  constexpr double kStep = 1e-6;
  for (const KlEstimator k : {KlEstimator::kK1, KlEstimator::kK2, KlEstimator::kK3}) {
    for (double logprob : {-25.0, -3.0, -1.0, -0.2}) {
      const double numeric = (KlDivergence(logprob + kStep, -1.5, k).value -
                              KlDivergence(logprob - kStep, -1.5, k).value) /
                             (2 * kStep);
      const double exact = KlDivergence(logprob, -1.5, k).derivative;
      EXPECT_NEAR(exact, numeric, 1e-6 * std::max(1.0, std::abs(exact)));
    }
  }
}

TEST(WarmedLearningRate, RisesLinearlyAndStays) {
  EXPECT_DOUBLE_EQ(WarmedLearningRate(1e-4, 0, 10), 1e-5);
  EXPECT_DOUBLE_EQ(WarmedLearningRate(1e-4, 9, 10), 1e-4);
  EXPECT_DOUBLE_EQ(WarmedLearningRate(1e-4, 100, 10), 1e-4);
  EXPECT_DOUBLE_EQ(WarmedLearningRate(1e-4, 0, 0), 1e-4);
}

}  // namespace
}  // namespace temper::numerics
