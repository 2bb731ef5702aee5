#include "numerics/noise_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace temper::numerics {
namespace {

using testing::HasSubstr;

NoisePolicy Make(NoiseSpec spec) {
  spec.enabled = true;
  return *NoisePolicy::Create(spec, {.num_layers = 2});
}

ErrorStats AtScale(double scale) {
  ErrorStats stats = {.calls = 1, .elements = 100, .changed = 100};
  stats.sum_sq_value.Add(100.0);
  stats.sum_sq_error.Add(100.0 * scale * scale);
  return stats;
}

constexpr NoiseRowId kQ0 = {Phase::kRollout, Direction::kForward, 0, Operator::kQ};
constexpr NoiseRowId kQ1 = {Phase::kRollout, Direction::kForward, 1, Operator::kQ};

TEST(NoiseRowLabels, AreThoseOfTheRow) {
  const auto labels = NoiseRowLabels(
      {Phase::kTrain, Direction::kBackward, 3, Operator::kUp, TensorRole::kGradWeight});
  EXPECT_EQ(labels.at("phase"), "train");
  EXPECT_EQ(labels.at("direction"), "backward");
  EXPECT_EQ(labels.at("layer"), "3");
  EXPECT_EQ(labels.at("operator"), "up");
  EXPECT_EQ(labels.at("tensor"), "grad_weight");
  EXPECT_EQ(NoiseRowLabels({.op = Operator::kLmHead}).at("layer"), "none");
}

TEST(CheckAchievedScale, NamesTheRowThatErredAtHalfOrTwiceItsStrength) {
  const NoisePolicy policy = Make({.error_scale = 0.1});
  for (const auto& [scale, fits] : {std::pair{0.1, true},
                                    {0.08, true},
                                    {0.13, true},
                                    {0.05, false},
                                    {0.2, false},
                                    {0.0, false}}) {
    NoiseCounters counters;
    counters.Count(kQ0, AtScale(0.1));
    counters.Count(kQ1, AtScale(scale));
    const absl::Status status = CheckAchievedScale(policy, counters);
    EXPECT_EQ(status.ok(), fits) << scale;
    if (fits) continue;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rollout forward layers.1 q: achieved"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("configured 0.1 (1 wrong row)"));
  }
}

TEST(CheckAchievedScale, JudgesOnlyErrorsOfWhichTheLawIsKnown) {
  NoiseCounters half;
  half.Count(kQ0, AtScale(0.05));
  const NoiseSpec others[] = {
      {.error_type = ErrorType::kTruncation, .error_scale = 0.1},
      {.error_type = ErrorType::kSaturation, .fault_magnitude = 0.1},
      {.error_scale = 0.1, .noise_key = NoiseKey::kFrozen},
      {.error_scale = 0.1, .target_layers = {1}},
  };
  for (const NoiseSpec& spec : others) EXPECT_TRUE(CheckAchievedScale(Make(spec), half).ok());
  NoiseCounters nothing;
  nothing.Count(kQ0, {});
  nothing.Count(
      {Phase::kRollout, Direction::kForward, 0, Operator::kInputNorm, TensorRole::kWeightNoise},
      AtScale(0.3));
  for (const TensorRole injected :
       {TensorRole::kInputOperand, TensorRole::kWeightOperand, TensorRole::kInjectedOutput}) {
    nothing.Count({Phase::kRollout, Direction::kForward, 0, Operator::kQ, injected}, AtScale(0.3));
  }
  EXPECT_TRUE(CheckAchievedScale(Make({.error_scale = 0.1}), nothing).ok());
}

}  // namespace
}  // namespace temper::numerics
