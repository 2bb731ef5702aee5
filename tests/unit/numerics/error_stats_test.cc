#include "numerics/error_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace temper::numerics {
namespace {

TEST(ExactSum, GivesTheSameBitsInEveryOrderAndGrouping) {
  std::vector<double> parts;
  for (int i = 0; i < 1000; ++i) parts.push_back(std::exp(std::sin(i * 1.7) * 30.0));
  ExactSum forward, backward, grouped;
  for (double part : parts) forward.Add(part);
  for (auto it = parts.rbegin(); it != parts.rend(); ++it) backward.Add(*it);
  for (size_t start = 0; start < parts.size(); start += 37) {
    ExactSum group;
    for (size_t i = start; i < std::min(parts.size(), start + 37); ++i) group.Add(parts[i]);
    grouped.Merge(group);
  }
  EXPECT_EQ(forward, backward);
  EXPECT_EQ(forward, grouped);
  double expected = 0.0;
  for (double part : parts) expected += part;
  EXPECT_NEAR(forward.value(), expected, expected * 1e-12);
}

TEST(ExactSum, KeepsDoublesExactlyWithinItsUnits) {
  for (double value : {0.0, 1.0, 0x1p-70, 3.0e-20, 0.1, 12345.678, 0x1.fffffffffffffp+56, 1e16}) {
    ExactSum sum;
    sum.Add(value);
    EXPECT_NEAR(sum.value(), value, std::max(value * 0x1p-52, 0x1p-70)) << value;
    EXPECT_EQ(ExactSum::FromWords(sum.high(), sum.low()), sum);
  }
}

TEST(ExactSum, SaturatesAndIgnoresWhatIsNoAddend) {
  ExactSum sum;
  sum.Add(std::numeric_limits<double>::quiet_NaN());
  sum.Add(-1.0);
  EXPECT_EQ(sum, ExactSum());
  sum.Add(std::numeric_limits<double>::infinity());
  EXPECT_EQ(sum.value(), 0x1p57);
  sum.Add(1.0);
  EXPECT_EQ(sum.value(), 0x1p57);
  ExactSum half;
  half.Add(0x1p56);
  half.Add(0x1p56);
  EXPECT_EQ(half.value(), 0x1p57);
}

TEST(ErrorStats, AchievedScaleIsTheRootOfTheRatio) {
  ErrorStats stats;
  EXPECT_EQ(stats.AchievedScale(), 0.0);
  stats.sum_sq_error.Add(0.25);
  stats.sum_sq_value.Add(100.0);
  EXPECT_DOUBLE_EQ(stats.AchievedScale(), 0.05);
}

}  // namespace
}  // namespace temper::numerics
