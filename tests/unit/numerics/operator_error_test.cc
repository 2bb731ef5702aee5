#include "numerics/operator_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "numerics/gaussian.h"
#include "numerics/site.h"
#include "services/base/random_key.h"
#include "tests/unit/numerics/simd_paths.h"

namespace temper::numerics {
namespace {

constexpr uint32_t kSite = Site(3, Operator::kDown, TensorRole::kOutput);
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One of every kind, large enough to act on normals in short rows.
std::vector<OperatorError> AllErrors() {
  return {{.type = ErrorType::kRelativeGaussian, .strength = 0.05f},
          {.type = ErrorType::kAbsoluteGaussian, .strength = 0.1f},
          {.type = ErrorType::kSystematicBias, .strength = 0.05f},
          {.type = ErrorType::kSystematicBias, .strength = 0.05f, .relative = true},
          {.type = ErrorType::kTruncation, .strength = 0.25f},
          {.type = ErrorType::kDeadzone, .strength = 0.2f},
          {.type = ErrorType::kSaturation, .strength = 0.3f},
          {.type = ErrorType::kSpike, .strength = 0.5f, .spike_probability = 0.2}};
}

std::vector<float> ApplyToRow(const OperatorError& error, std::vector<float> x,
                              ErrorStats* stats = nullptr, SimdPath path = BestSimdPath()) {
  const RowKey key = {.key = 7, .position = 5, .lane = 2};
  const auto cols = static_cast<int64_t>(x.size());
  ApplyError(error, x.data(), 1, cols, cols, {&key, 1}, kSite, stats, path);
  return x;
}

struct Rows {
  int64_t rows = 5, cols = 0, stride = 0;
  std::vector<float> y;
  std::vector<RowKey> keys;
};

Rows MakeRows(int64_t cols) {
  Rows p = {.cols = cols, .stride = cols + 3};
  p.y.resize(static_cast<size_t>(p.rows * p.stride));
  FillGaussian(p.y.data(), static_cast<int64_t>(p.y.size()), 1, 1);
  p.y[0] = 0.0f;
  for (uint32_t r = 0; r < 5; ++r) p.keys.push_back({.key = 10 + r / 2, .position = r, .lane = 1});
  return p;
}

ErrorStats Apply(const OperatorError& error, Rows* p, SimdPath path = BestSimdPath()) {
  ErrorStats stats;
  ApplyError(error, p->y.data(), p->rows, p->cols, p->stride, p->keys, kSite, &stats, path);
  return stats;
}

TEST(OperatorError, DeterministicTypesHaveTheValuesOfTheirFormulas) {
  const std::vector<float> x = {0.0f, -0.0f, 1.0f, -1.0f, 0.3f, -0.3f, 0.05f, -4.0f, 3.5f};
  const auto with = [&](ErrorType type, float strength, bool relative = false) {
    return ApplyToRow({.type = type, .strength = strength, .relative = relative}, x);
  };
  using V = std::vector<float>;
  EXPECT_EQ(with(ErrorType::kSystematicBias, 0.25f),
            (V{0.0f, 0.0f, 1.25f, -1.25f, 0.55f, -0.55f, 0.3f, -4.25f, 3.75f}));
  EXPECT_EQ(with(ErrorType::kSystematicBias, 0.25f, true),
            (V{0.0f, 0.0f, 1.25f, -1.25f, 0.375f, -0.375f, 0.0625f, -5.0f, 4.375f}));
  EXPECT_EQ(with(ErrorType::kTruncation, 0.25f),
            (V{0.0f, 0.0f, 1.0f, -1.0f, 0.25f, -0.25f, 0.0f, -4.0f, 3.5f}));
  EXPECT_EQ(with(ErrorType::kTruncation, 0.75f),
            (V{0.0f, 0.0f, 0.75f, -0.75f, 0.0f, 0.0f, 0.0f, -3.75f, 3.0f}));
  // The row's maximum is 4: below 1 is dead, 1 itself is not.
  EXPECT_EQ(with(ErrorType::kDeadzone, 0.25f),
            (V{0.0f, 0.0f, 1.0f, -1.0f, 0.0f, 0.0f, 0.0f, -4.0f, 3.5f}));
  EXPECT_EQ(with(ErrorType::kSaturation, 0.25f),
            (V{0.0f, 0.0f, 1.0f, -1.0f, 0.3f, -0.3f, 0.05f, -3.0f, 3.0f}));
}

TEST(OperatorError, ValuesWithoutAFractionAreNotTruncatedAway) {
  const std::vector<float> x = {3e38f, -1.5e10f, 0x1p24f, 1.0f};
  const OperatorError error = {.type = ErrorType::kTruncation, .strength = 0x1p-23f};
  EXPECT_EQ(ApplyToRow(error, x), x);
}

// n and the spike's words are drawn here with the reference functions, element by element.
TEST(OperatorError, RandomTypesTakeTheirDrawsFromTheElementsOwnCounters) {
  const std::vector<float> x = {2.0f, -1.0f, 0.5f, 0.0f, -2.5f, 1.5f, 0.25f, -0.75f, 1.0f};
  std::vector<float> n(x.size());
  FillGaussian(n.data(), static_cast<int64_t>(n.size()), 7, kSite, 5, 2);
  const OperatorError absolute = {.type = ErrorType::kAbsoluteGaussian, .strength = 0.1f};
  const OperatorError spike = {
      .type = ErrorType::kSpike, .strength = 0.4f, .spike_probability = 0.5};
  const std::vector<float> noisy = ApplyToRow(absolute, x), spiky = ApplyToRow(spike, x);
  int struck = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(noisy[i], std::fma(0.1f, n[i], x[i])) << i;
    const uint32_t word = base::Philox({static_cast<uint32_t>(i / 4), 5, kSite | 8u, 2}, 7)[i % 4];
    const bool strikes = word < 0x80000000u;
    struck += strikes ? 1 : 0;
    EXPECT_EQ(spiky[i], strikes ? std::fma(0.4f * 2.5f, n[i], x[i]) : x[i]) << i;
  }
  EXPECT_GT(struck, 0);
  EXPECT_LT(struck, 9);
}

TEST(OperatorError, EveryPathGivesTheSameBitsAndCounts) {
  for (const OperatorError& error : AllErrors()) {
    for (int64_t cols : {1, 15, 16, 96, 1030, 2500}) {
      Rows expected = MakeRows(cols);
      const ErrorStats expected_stats = Apply(error, &expected, SimdPath::kScalar);
      for (SimdPath path : Paths()) {
        Rows p = MakeRows(cols);
        const ErrorStats stats = Apply(error, &p, path);
        EXPECT_EQ(BitsOf(p.y), BitsOf(expected.y)) << DescribeError(error) << " " << cols;
        EXPECT_EQ(stats, expected_stats) << DescribeError(error) << SimdPathName(path) << cols;
      }
    }
  }
}

TEST(OperatorError, RowsDoNotDependOnTheirBatchOrOrderAndCountsAddUp) {
  for (const OperatorError& error : AllErrors()) {
    Rows whole = MakeRows(1100);
    Rows split = whole;
    const std::vector<float> before = whole.y;
    ErrorStats expected = Apply(error, &whole), merged;
    for (int64_t r = split.rows - 1; r >= 0; --r) {
      ApplyError(error, split.y.data() + r * split.stride, 1, split.cols, split.stride,
                 {&split.keys[static_cast<size_t>(r)], 1}, kSite, &merged);
    }
    EXPECT_EQ(BitsOf(whole.y), BitsOf(split.y)) << DescribeError(error);
    EXPECT_EQ(merged.calls, 5u);
    merged.calls = expected.calls;
    EXPECT_EQ(merged, expected) << DescribeError(error);
    EXPECT_GT(expected.changed, 0u) << DescribeError(error);
    for (int64_t r = 0; r < whole.rows; ++r) {
      for (int64_t c = whole.cols; c < whole.stride; ++c) {
        const auto i = static_cast<size_t>(r * whole.stride + c);
        EXPECT_EQ(whole.y[i], before[i]) << "padding";
      }
    }
  }
}

TEST(OperatorError, WhatIsNotFinitePassesAndIsCounted) {
  for (const OperatorError& error : AllErrors()) {
    std::vector<float> x(40, 1.0f);
    x[3] = kInf;
    x[20] = kNan;
    x[39] = -kInf;
    for (SimdPath path : Paths()) {
      ErrorStats stats;
      const std::vector<float> y = ApplyToRow(error, x, &stats, path);
      EXPECT_EQ(y[3], kInf) << DescribeError(error);
      EXPECT_TRUE(std::isnan(y[20])) << DescribeError(error);
      EXPECT_EQ(y[39], -kInf) << DescribeError(error);
      EXPECT_EQ(stats.non_finite, 3u);
      EXPECT_DOUBLE_EQ(stats.sum_sq_value.value(), 37.0);
      // The maximum is that of the finite values.
      if (error.type == ErrorType::kSaturation) {
        EXPECT_EQ(y[0], 0.7f);
      }
    }
  }
}

TEST(OperatorError, StrengthZeroIsNoErrorOfAnyType) {
  for (OperatorError error : AllErrors()) {
    error.strength = 0.0f;
    EXPECT_FALSE(error.acts());
    Rows p = MakeRows(96);
    const std::vector<float> before = p.y;
    const ErrorStats stats = Apply(error, &p);
    EXPECT_EQ(BitsOf(p.y), BitsOf(before));
    EXPECT_EQ(stats.elements, 480u);
    EXPECT_EQ(stats.changed, 0u);
  }
}

TEST(OperatorError, OfAWeightActsByOutputFeatureAndByFlatElement) {
  // Rows of 1,037 begin inside of counters and blocks.
  constexpr int64_t kOut = 5, kIn = 1037;
  std::vector<float> w(kOut * kIn);
  FillGaussian(w.data(), kOut * kIn, 4, 4);
  for (int64_t i = 0; i < kIn; ++i) w[static_cast<size_t>(2 * kIn + i)] *= 100.0f;
  std::vector<float> n(w.size());
  FillGaussian(n.data(), kOut * kIn, 9, kSite);
  for (const OperatorError& error : AllErrors()) {
    std::vector<float> erred = w;
    ErrorStats stats;
    ApplyErrorToWeight(error, erred.data(), kOut, kIn, 9, kSite, &stats);
    EXPECT_EQ(stats.calls, 1u);
    EXPECT_EQ(stats.elements, w.size());
    for (int64_t row = 0; row < kOut; ++row) {
      float largest = 0.0f;
      for (int64_t i = 0; i < kIn; ++i) {
        largest = std::max(largest, std::abs(w[static_cast<size_t>(row * kIn + i)]));
      }
      for (int64_t i = 0; i < kIn; ++i) {
        const auto at = static_cast<size_t>(row * kIn + i);
        const uint32_t word =
            base::Philox({static_cast<uint32_t>(at / 4), 0, kSite | 8u, 0}, 9)[at % 4];
        float expected = w[at];
        switch (error.type) {
          case ErrorType::kRelativeGaussian:
            expected = w[at] * std::fma(error.strength, n[at], 1.0f);
            break;
          case ErrorType::kAbsoluteGaussian:
            expected = std::fma(error.strength, n[at], w[at]);
            break;
          case ErrorType::kSystematicBias:
            expected = error.relative ? w[at] * (1.0f + error.strength)
                                      : w[at] + std::copysign(error.strength, w[at]);
            break;
          case ErrorType::kTruncation:
            expected = error.strength * std::trunc(w[at] / error.strength);
            break;
          case ErrorType::kDeadzone:
            if (std::abs(w[at]) < error.strength * largest) expected = 0.0f;
            break;
          case ErrorType::kSaturation:
            expected = std::clamp(w[at], -(1.0f - error.strength) * largest,
                                  (1.0f - error.strength) * largest);
            break;
          case ErrorType::kSpike:
            if (word < std::round(error.spike_probability * 0x1p32)) {
              expected = std::fma(error.strength * largest, n[at], w[at]);
            }
            break;
        }
        ASSERT_EQ(erred[at], expected) << DescribeError(error) << " " << row << " " << i;
      }
    }
  }
}

// Largest distance between the empirical distribution and the normal one, times sqrt(count).
double KolmogorovSmirnov(std::vector<double> draws) {
  std::sort(draws.begin(), draws.end());
  const auto count = static_cast<double>(draws.size());
  double largest = 0.0;
  for (size_t i = 0; i < draws.size(); ++i) {
    const double f = 0.5 * std::erfc(-draws[i] / std::numbers::sqrt2);
    largest = std::max(
        {largest, f - static_cast<double>(i) / count, static_cast<double>(i + 1) / count - f});
  }
  return largest * std::sqrt(count);
}

// Four moments within four of their standard errors, Kolmogorov-Smirnov at 1 % (1.63), and the
// expected number beyond 3 within four of its standard deviations.
void ExpectStandardNormal(const std::vector<double>& draws) {
  const auto count = static_cast<double>(draws.size());
  double moments[5] = {};
  double beyond = 0.0;
  for (const double draw : draws) {
    double power = 1.0;
    for (int m = 1; m <= 4; ++m) moments[m] += (power *= draw) / count;
    beyond += std::abs(draw) > 3.0 ? 1.0 : 0.0;
  }
  EXPECT_NEAR(moments[1], 0.0, 4.0 / std::sqrt(count));
  EXPECT_NEAR(moments[2], 1.0, 4.0 * std::sqrt(2.0 / count));
  EXPECT_NEAR(moments[3], 0.0, 4.0 * std::sqrt(15.0 / count));
  EXPECT_NEAR(moments[4], 3.0, 4.0 * std::sqrt(96.0 / count));
  EXPECT_LT(KolmogorovSmirnov(draws), 1.63);
  const double expected = count * 2.699796e-3;
  EXPECT_NEAR(beyond, expected, 4.0 * std::sqrt(expected));
}

TEST(OperatorError, AbsoluteErrorIsNormalWhateverTheValue) {
  const OperatorError error = {.type = ErrorType::kAbsoluteGaussian, .strength = 0.125f};
  std::vector<float> x(1 << 18);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 3) - 1.0f;
  ErrorStats stats;
  const std::vector<float> y = ApplyToRow(error, x, &stats);
  std::vector<double> draws;
  for (size_t i = 0; i < x.size(); ++i) draws.push_back((double{y[i]} - x[i]) / 0.125);
  ExpectStandardNormal(draws);
  // sum e^2 / sum x^2: s^2 over the mean square of -1, 0, 1.
  EXPECT_NEAR(stats.AchievedScale(), 0.125 / std::sqrt(2.0 / 3.0), 1e-3);
}

TEST(OperatorError, SpikesStrikeWithTheirProbabilityAndAreNormalTimesTheMaximum) {
  for (double p : {0.001, 0.125, 1.0}) {
    const OperatorError error = {
        .type = ErrorType::kSpike, .strength = 0.5f, .spike_probability = p};
    std::vector<float> x(1 << 20, 1.0f);
    x[17] = -4.0f;
    ErrorStats stats;
    const std::vector<float> y = ApplyToRow(error, x, &stats);
    std::vector<double> draws;
    for (size_t i = 0; i < x.size(); ++i) {
      if (y[i] != x[i]) draws.push_back((double{y[i]} - x[i]) / 2.0);
    }
    const double expected = p * static_cast<double>(x.size());
    EXPECT_NEAR(static_cast<double>(draws.size()), expected,
                4.0 * std::sqrt(expected * (1.0 - p)) + 2.0)
        << p;
    EXPECT_EQ(stats.changed, draws.size());
    ExpectStandardNormal(draws);
  }
}

TEST(OperatorError, WhereASpikeStrikesSaysNothingAboutItsSize) {
  // The struck elements' normals must not be a part of the normals: their squares average to 1.
  const OperatorError rare = {
      .type = ErrorType::kSpike, .strength = 1.0f, .spike_probability = 0.1};
  const std::vector<float> x(1 << 20, 1.0f);
  const std::vector<float> y = ApplyToRow(rare, x);
  double product = 0.0, count = 0.0;
  for (size_t i = 1; i < x.size(); ++i) {
    const double struck = y[i - 1] != x[i - 1] ? 0.9 : -0.1;  // mean 0, variance 0.09
    const double size = y[i] != x[i] ? double{y[i]} - 1.0 : 0.0;
    product += struck * size * size;
    count += size != 0.0 ? 1.0 : 0.0;
  }
  // Each struck element adds a product of variance 0.09 * 3.
  EXPECT_LT(std::abs(product), 4.0 * std::sqrt(0.27 * count));
}

TEST(OperatorError, StrengthsOutOfRangeAreRefusedByName) {
  for (const auto type : {ErrorType::kRelativeGaussian, ErrorType::kTruncation,
                          ErrorType::kDeadzone, ErrorType::kSaturation, ErrorType::kSpike}) {
    EXPECT_TRUE(CheckStrength(type, 0.0).ok());
    EXPECT_TRUE(CheckStrength(type, 0.5).ok());
    for (double bad : {-0.1, std::nan(""), HUGE_VAL}) {
      const std::string message(CheckStrength(type, bad).message());
      EXPECT_NE(message.find(StrengthName(type)), std::string::npos) << message;
    }
  }
  EXPECT_TRUE(CheckStrength(ErrorType::kSpike, 3.0).ok());
  EXPECT_FALSE(CheckStrength(ErrorType::kDeadzone, 1.0).ok());
  EXPECT_TRUE(CheckStrength(ErrorType::kSaturation, 1.0).ok());
  EXPECT_FALSE(CheckStrength(ErrorType::kSaturation, 1.01).ok());
}

TEST(OperatorError, NamesGoBothWays) {
  for (int t = 0; t < kErrorTypeCount; ++t) {
    const auto type = static_cast<ErrorType>(t);
    EXPECT_EQ(ErrorTypeFromName(ErrorTypeName(type)), type);
  }
  EXPECT_EQ(ErrorTypeFromName("mxfp4"), std::nullopt);
  EXPECT_EQ(DescribeError(AllErrors()[7]), "spike 0.5 (probability 0.2)");
}

}  // namespace
}  // namespace temper::numerics
