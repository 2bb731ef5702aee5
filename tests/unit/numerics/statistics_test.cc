#include "numerics/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace temper::numerics {
namespace {

TEST(WilsonInterval, MatchesHandWorkedValues) {
  // 8 of 10: centre (0.8 + 3.8415 / 20) / 1.38415, half 1.95996 / 1.38415 sqrt(0.016 + 0.0096036).
  const Interval eight = WilsonInterval(8, 10);
  EXPECT_NEAR(eight.low, 0.49016, 1e-5);
  EXPECT_NEAR(eight.high, 0.94331, 1e-5);
  // None of 10: [0, z^2 / (n + z^2)].
  const Interval none = WilsonInterval(0, 10);
  EXPECT_EQ(none.low, 0.0);
  EXPECT_NEAR(none.high, 3.841459 / 13.841459, 1e-6);
  const Interval all = WilsonInterval(10, 10);
  EXPECT_NEAR(all.low, 1 - none.high, 1e-12);
  EXPECT_EQ(all.high, 1.0);
  // 70 % of 1,319 is within 2.5 points at 95 %.
  const Interval gsm8k = WilsonInterval(923, 1319);
  EXPECT_NEAR((gsm8k.high - gsm8k.low) / 2, 0.0247, 0.0002);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1.0);
}

TEST(McNemar, MatchesTheExactBinomial) {
  // P(X <= 2 of 10) = (1 + 10 + 45) / 1024.
  EXPECT_NEAR(McNemar(8, 2).p_value, 2 * 56.0 / 1024, 1e-12);
  EXPECT_NEAR(McNemar(2, 8).p_value, 2 * 56.0 / 1024, 1e-12);
  EXPECT_EQ(McNemar(5, 5).p_value, 1.0);
  EXPECT_EQ(McNemar(0, 0).p_value, 1.0);
  EXPECT_NEAR(McNemar(0, 5).p_value, 2.0 / 32, 1e-12);
  EXPECT_LT(McNemar(400, 600).p_value, 1e-9);
}

TEST(McNemar, CountsTheQuestionsThatChanged) {
  const std::vector<uint8_t> before = {1, 1, 0, 0, 1}, after = {1, 0, 1, 1, 1};
  const auto result = McNemar(before, after);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->only_first, 1);
  EXPECT_EQ(result->only_second, 2);
  const std::vector<uint8_t> shorter = {1};
  EXPECT_EQ(McNemar(before, shorter).status().code(), absl::StatusCode::kInvalidArgument);
}

std::vector<double> Outcomes(int questions, int right) {
  std::vector<double> values(static_cast<size_t>(questions), 0.0);
  for (int i = 0; i < right; ++i) values[static_cast<size_t>(i)] = 1.0;
  return values;
}

TEST(PairedBootstrap, AgreesWithTheNormalApproximation) {
  // 400 questions, 40 of them won and 10 lost: d = 0.075, var of d_i = 0.125 - 0.075^2.
  std::vector<double> before = Outcomes(400, 10), after(400, 0.0);
  for (size_t i = 10; i < 50; ++i) after[i] = 1.0;
  const auto result = PairedBootstrap(before, after, 1);
  ASSERT_TRUE(result.ok()) << result.status();
  const double standard_error = std::sqrt((0.125 - 0.075 * 0.075) / 400);
  EXPECT_DOUBLE_EQ(result->difference, 0.075);
  EXPECT_NEAR(result->standard_error, standard_error, standard_error * 0.03);
  EXPECT_NEAR(result->interval.low, 0.075 - 1.96 * standard_error, 0.003);
  EXPECT_NEAR(result->interval.high, 0.075 + 1.96 * standard_error, 0.003);
  EXPECT_LT(result->p_value, 0.001);
  EXPECT_GE(result->p_value, 2.0 / 10001);
}

TEST(PairedBootstrap, IsTheSameForTheSameSeedAndSymmetric) {
  const std::vector<double> before = Outcomes(101, 30), after = Outcomes(101, 33);
  const auto once = PairedBootstrap(before, after, 5, 2000);
  const auto twice = PairedBootstrap(before, after, 5, 2000);
  const auto swapped = PairedBootstrap(after, before, 5, 2000);
  ASSERT_TRUE(once.ok() && twice.ok() && swapped.ok());
  EXPECT_EQ(once->p_value, twice->p_value);
  EXPECT_EQ(once->interval.low, twice->interval.low);
  EXPECT_EQ(once->p_value, swapped->p_value);
  EXPECT_DOUBLE_EQ(once->interval.low, -swapped->interval.high);
}

TEST(PairedBootstrap, EqualOutcomesAreNoDifference) {
  const std::vector<double> same = Outcomes(50, 20);
  const auto result = PairedBootstrap(same, same, 5, 500);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->difference, 0.0);
  EXPECT_EQ(result->p_value, 1.0);
}

TEST(PairedBootstrap, RefusesWhatCannotBePaired) {
  const std::vector<double> two = {0.0, 1.0}, one = {1.0}, none;
  const std::vector<double> bad = {0.0, std::numeric_limits<double>::quiet_NaN()};
  EXPECT_FALSE(PairedBootstrap(two, one, 1).ok());
  EXPECT_FALSE(PairedBootstrap(none, none, 1).ok());
  EXPECT_FALSE(PairedBootstrap(two, bad, 1).ok());
  EXPECT_FALSE(PairedBootstrap(two, two, 1, 10).ok());
}

TEST(QuestionMeans, AveragesOverSeeds) {
  const std::vector<uint8_t> outcomes = {1, 0, 1, 1, 0, 0};  // three seeds of two questions
  std::vector<double> means(2);
  QuestionMeans(outcomes, 3, means);
  EXPECT_DOUBLE_EQ(means[0], 2.0 / 3);
  EXPECT_DOUBLE_EQ(means[1], 1.0 / 3);
}

TEST(Descriptive, MeanMedianQuantileAndDeviation) {
  const std::vector<double> values = {4, 1, 3, 2}, one = {7}, none;
  EXPECT_EQ(Mean(values), 2.5);
  EXPECT_EQ(Median(values), 2.5);
  EXPECT_EQ(Quantile(values, 0.0), 1.0);
  EXPECT_EQ(Quantile(values, 1.0), 4.0);
  EXPECT_NEAR(StandardDeviation(values), std::sqrt(5.0 / 3), 1e-15);
  EXPECT_EQ(Median(one), 7.0);
  EXPECT_EQ(StandardDeviation(one), 0.0);
  EXPECT_EQ(Median(none), 0.0);
}

}  // namespace
}  // namespace temper::numerics
