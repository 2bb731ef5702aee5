#include "numerics/formats/quantization_stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics {
namespace {

constexpr int64_t kCount = int64_t{1} << 18;
constexpr int64_t kCols = 1024;

QuantizationStats StatsOf(const FormatSpec& spec, const std::vector<float>& x,
                          int64_t cols = kCols) {
  const FakeQuantizer quantizer = Quantizer(spec);
  const Quantized q = Quantize(quantizer, x, cols);
  QuantizationStats stats(ElementMax(spec.format));
  stats.AddRows(quantizer, x.data(), q.values.data(), q.scales.data(),
                static_cast<int64_t>(x.size()) / cols, cols);
  return stats;
}

TEST(QuantizationStats, HaveTheValuesOfAHandWorkedBlock) {
  QuantizationStats stats(6.0f);
  const std::vector<float> x = {3.0f, -0.2f, 0.0f, 7.0f, 1e-11f};
  const std::vector<float> q = {3.0f, 0.0f, 0.0f, 6.0f, 0.0f};
  stats.AddBlockRow(x, q, 1.0f);
  EXPECT_EQ(stats.elements(), 5);
  EXPECT_NEAR(stats.sqnr_db(), 10 * std::log10((9 + 0.04 + 49) / (0.04 + 1)), 1e-6);
  EXPECT_DOUBLE_EQ(stats.dead_zone(), 1.0 / 5);   // 1e-11 is too small to be a signal
  EXPECT_DOUBLE_EQ(stats.saturation(), 1.0 / 5);  // 7 is beyond 6
  EXPECT_NEAR(stats.relative_error(), (1.0 + 1.0 / 7 + 1e-11 / 1.1e-10) / 5, 1e-8);
}

TEST(QuantizationStats, ExactQuantizationHas100Db) {
  QuantizationStats stats(6.0f);
  EXPECT_EQ(stats.sqnr_db(), 100.0);
  stats.AddBlockRow(std::vector<float>{1.0f, 2.0f}, std::vector<float>{1.0f, 2.0f}, 1.0f);
  EXPECT_EQ(stats.sqnr_db(), 100.0);
  EXPECT_EQ(stats.BlockRowSqnrDb(0.5), 100.0);
  EXPECT_EQ(SqnrDb(0.0, 1.0), -100.0);
}

TEST(QuantizationStats, CountWhatIsNotFiniteAndLeaveItOut) {
  QuantizationStats stats(6.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {1.0f, nan, std::numeric_limits<float>::infinity(), 2.0f};
  const std::vector<float> q = {1.0f, nan, nan, 2.0f};
  stats.AddBlockRow(x, q, 1.0f);
  stats.AddBlockRow(std::vector<float>{nan}, std::vector<float>{nan}, nan);
  EXPECT_EQ(stats.elements(), 2);
  EXPECT_EQ(stats.non_finite(), 3);
  EXPECT_EQ(stats.block_rows(), 1);
  EXPECT_EQ(stats.sqnr_db(), 100.0);
}

// The table of docs/numerics.md: centres of SQNR in dB, relative error, dead zone.
struct Row {
  FormatSpec spec;
  std::vector<float> x;
  double sqnr_db, relative_error, dead_zone;
};

TEST(QuantizationStats, AreThoseOfTheTable) {
  const std::vector<float> normal = Gaussians(kCount, 0.02f), heavy = StudentT5(kCount, 0.02f);
  using enum NumberFormat;
  const Row rows[] = {
      {{.format = kMxfp4}, normal, 18.86, 0.201, 0.082},
      {{.format = kNvfp4}, normal, 20.44, 0.179, 0.068},
      {{.format = kFp8}, normal, 31.55, 0.023, -1},
      {{.format = kMxfp4}, heavy, 17.96, 0.253, 0.122},
      {{.format = kNvfp4}, heavy, 20.69, 0.210, 0.092},
  };
  for (const Row& row : rows) {
    const QuantizationStats stats = StatsOf(row.spec, row.x);
    EXPECT_NEAR(stats.sqnr_db(), row.sqnr_db, 0.1) << Describe(row.spec);
    EXPECT_NEAR(stats.relative_error(), row.relative_error, 0.002) << Describe(row.spec);
    if (row.dead_zone >= 0) {
      EXPECT_NEAR(stats.dead_zone(), row.dead_zone, 0.002) << Describe(row.spec);
    }
  }
}

TEST(QuantizationStats, QuantilesOfBlockRowsAreThoseOfTheSortedList) {
  const std::vector<float> x = StudentT5(kCount, 0.02f);
  const FakeQuantizer quantizer = Quantizer({.format = NumberFormat::kMxfp4});
  const Quantized q = Quantize(quantizer, x, kCols);
  std::vector<double> db;
  for (size_t b = 0; b < x.size(); b += 32) {
    double value = 0, error = 0;
    for (size_t i = b; i < b + 32; ++i) {
      value += double{x[i]} * x[i];
      error += (double{q.values[i]} - x[i]) * (double{q.values[i]} - x[i]);
    }
    db.push_back(10 * std::log10(value / error));
  }
  std::sort(db.begin(), db.end());
  const QuantizationStats stats = StatsOf({.format = NumberFormat::kMxfp4}, x);
  EXPECT_EQ(stats.block_rows(), static_cast<int64_t>(db.size()));
  for (const double quantile : {0.01, 0.05, 0.5, 0.95, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(quantile * static_cast<double>(db.size())));
    EXPECT_NEAR(stats.BlockRowSqnrDb(quantile), db[rank - 1], 0.0051) << quantile;
  }
}

TEST(QuantizationStats, WithoutTheLargestThousandthAFewMassiveValuesSetNothing) {
  std::vector<float> x = Gaussians(kCount, 0.02f);
  const double clean = StatsOf({.format = NumberFormat::kMxfp4}, x).sqnr_db();
  for (size_t i = 7; i < x.size(); i += 5000)
    x[i] = 384.0f;  // exact (6 * 2^6), and all of the signal
  const FakeQuantizer quantizer = Quantizer({.format = NumberFormat::kMxfp4});
  const Quantized q = Quantize(quantizer, x, kCols);
  const QuantizationStats stats = StatsOf({.format = NumberFormat::kMxfp4}, x);
  // The exact cut: sorted by magnitude, the top 0.1 % away.
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return std::abs(x[a]) < std::abs(x[b]); });
  double value = 0, error = 0;
  for (size_t i = 0; i < x.size() - x.size() / 1000; ++i) {
    const double v = x[order[i]], e = q.values[order[i]] - v;
    value += v * v;
    error += e * e;
  }
  EXPECT_GT(stats.sqnr_db(), clean + 20);
  EXPECT_NEAR(stats.SqnrDbWithoutLargest(), 10 * std::log10(value / error), 0.01);
}

TEST(QuantizationStats, MergedPartsAreTheWhole) {
  const std::vector<float> x = StudentT5(kCount, 0.02f);
  const QuantizationStats whole = StatsOf({.format = NumberFormat::kMxfp4}, x);
  QuantizationStats merged(6.0f);
  for (size_t part = 0; part < 4; ++part) {
    const std::vector<float> quarter(x.begin() + part * kCount / 4,
                                     x.begin() + (part + 1) * kCount / 4);
    merged.Merge(StatsOf({.format = NumberFormat::kMxfp4}, quarter));
  }
  EXPECT_EQ(merged.elements(), whole.elements());
  EXPECT_EQ(merged.dead_zone(), whole.dead_zone());
  EXPECT_EQ(merged.saturation(), whole.saturation());
  EXPECT_EQ(merged.BlockRowSqnrDb(0.5), whole.BlockRowSqnrDb(0.5));
  EXPECT_NEAR(merged.sqnr_db(), whole.sqnr_db(), 1e-9);
  EXPECT_NEAR(merged.SqnrDbWithoutLargest(), whole.SqnrDbWithoutLargest(), 1e-9);
}

// A value's mean over n draws has a standard deviation of at most half a step / sqrt(n): all of
// 1,000 values stay within 5 of them but for a probability of 6e-4.
TEST(StochasticRounding, HasTheValueAsItsMeanInsideTheRange) {
  constexpr int64_t kValues = 1000, kDraws = 1 << 14;
  for (const NumberFormat format :
       {NumberFormat::kMxfp4, NumberFormat::kNvfp4, NumberFormat::kFp8}) {
    std::vector<float> x = Gaussians(kValues, 1.0f);
    for (float& value : x) value = std::clamp(value, -6.0f, 6.0f);
    for (size_t b = 0; b < x.size(); b += 16)
      x[b] = 6.0f;  // every block reaches 6 scales, not more
    const FakeQuantizer nearest = Quantizer({.format = format});
    const FakeQuantizer quantizer = Quantizer({.format = format, .stochastic_rounding = true});
    std::vector<double> sum(x.size());
    for (uint64_t draw = 0; draw < kDraws; ++draw) {
      const Quantized q = Quantize(quantizer, x, kValues, /*key=*/draw, /*site=*/3);
      for (size_t i = 0; i < x.size(); ++i) sum[i] += q.values[i];
    }
    double worst = 0.0, total = 0.0, nearest_total = 0.0, x_total = 0.0;
    const Quantized once = Quantize(nearest, x, kValues);
    for (size_t i = 0; i < x.size(); ++i) {
      const double magnitude = std::abs(x[i]);
      const double step = format == NumberFormat::kFp8 ? std::max(magnitude / 8, 6.0 / 448 / 8)
                          : magnitude < 2              ? 0.5
                          : magnitude < 4              ? 1.0
                                                       : 2.0;
      const double deviation = 0.5 * step / std::sqrt(double{kDraws});
      worst = std::max(worst, std::abs(sum[i] / kDraws - x[i]) / deviation);
      total += sum[i] / kDraws;
      nearest_total += once.values[i];
      x_total += x[i];
    }
    EXPECT_LT(worst, 5.0) << NumberFormatName(format);
    // Rounding to nearest misses the sum of the values by far more.
    EXPECT_LT(std::abs(total - x_total), 0.2) << NumberFormatName(format);
    EXPECT_GT(std::abs(nearest_total - x_total), 5 * std::abs(total - x_total));
  }
}

TEST(StochasticRounding, IsAFunctionOfKeySitePositionLaneAndElement) {
  const std::vector<float> x = Gaussians(3 * 50, 1.0f);
  const FakeQuantizer quantizer = Quantizer(
      {.format = NumberFormat::kMxfp4, .stochastic_rounding = true}, Operand::kActivation);
  const auto run = [&](std::vector<RowKey> keys, uint32_t site) {
    std::vector<float> out(x.size());
    quantizer.QuantizeRows(
        {.x = x.data(), .out = out.data(), .rows = 3, .cols = 50, .x_stride = 50, .out_stride = 50},
        keys, site);
    return out;
  };
  const std::vector<RowKey> keys = {{1, 0, 0}, {1, 1, 0}, {1, 2, 0}};
  const std::vector<float> once = run(keys, 4);
  EXPECT_EQ(run(keys, 4), once);
  EXPECT_NE(run(keys, 5), once);
  EXPECT_NE(run({{2, 0, 0}, {2, 1, 0}, {2, 2, 0}}, 4), once);
  EXPECT_NE(run({{1, 0, 1}, {1, 1, 1}, {1, 2, 1}}, 4), once);
  EXPECT_NE(run({{1, 5, 0}, {1, 6, 0}, {1, 7, 0}}, 4), once);
}

}  // namespace
}  // namespace temper::numerics
