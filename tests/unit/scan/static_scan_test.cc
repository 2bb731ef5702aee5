#include "scan/static_scan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "numerics/gaussian.h"
#include "numerics/noise_policy.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"

namespace temper::scan {
namespace {

using numerics::Operator;
using ::testing::HasSubstr;
using testing::StatusIs;

constexpr Operator kLinears[] = {Operator::kQ,    Operator::kK,  Operator::kV,   Operator::kO,
                                 Operator::kGate, Operator::kUp, Operator::kDown};
constexpr int64_t kWidth = 512;

model::ModelConfig OneLayer() {
  model::ModelConfig config;
  config.num_layers = 1;
  config.hidden_size = kWidth;
  return config;
}

std::vector<float> Gaussian(int64_t count, uint32_t site, float deviation = 0.02f) {
  std::vector<float> values(static_cast<size_t>(count));
  numerics::FillGaussian(values.data(), count, base::RandomKey(1, base::Purpose::kTest, 0), site);
  for (float& value : values) value *= deviation;
  return values;
}

model::TensorMap GaussianWeights() {
  model::TensorMap tensors;
  for (const Operator op : kLinears) {
    tensors[numerics::OperatorPath(op, 0) + ".weight"] = {
        .shape = {kWidth, kWidth}, .values = Gaussian(kWidth * kWidth, static_cast<uint32_t>(op))};
  }
  return tensors;
}

std::vector<ScanError> Errors(const std::vector<std::string>& names) {
  std::vector<ScanError> errors;
  for (const std::string& name : names) errors.push_back(ParseScanError(name).value());
  return errors;
}

TEST(StaticScan, GaussianWeightsHaveTheSqnrOfTheirFormat) {
  const auto errors = Errors({"mxfp4", "nvfp4", "fp8", "relative_gaussian:0.05"});
  const model::TensorMap tensors = GaussianWeights();
  const std::vector<StaticRow> rows =
      ScanWeights(OneLayer(), model::ViewsOf(tensors), errors, /*seed=*/1, /*threads=*/2);
  ASSERT_EQ(rows.size(), 4 * std::size(kLinears));
  // Centres as tests/unit/numerics/formats holds the quantizers to; 20 log10(1 / 0.05) for 5 %.
  const double centres[] = {18.86, 20.44, 31.55, 26.02};
  for (size_t i = 0; i < rows.size(); ++i) {
    const double centre = centres[i / std::size(kLinears)];
    EXPECT_NEAR(rows[i].sqnr_db, centre, 0.1) << rows[i].error;
    EXPECT_NEAR(rows[i].block_row_sqnr_db[3], centre, 0.5) << rows[i].error;
    EXPECT_EQ(rows[i].elements, kWidth * kWidth);
    EXPECT_EQ(rows[i].op, kLinears[i % std::size(kLinears)]);
  }
  EXPECT_NEAR(rows[0].dead_zone, 0.082, 0.004);
  EXPECT_NEAR(rows[0].relative_error, 0.201, 0.005);
  EXPECT_EQ(rows.back().saturation, 0.0);
}

model::ObservedRows InputRows(const std::vector<float>& x, int64_t rows) {
  return {.point = model::ObservedPoint::kLinearInput,
          .op = Operator::kQ,
          .layer = 0,
          .x = x.data(),
          .rows = rows,
          .cols = kWidth};
}

TEST(ActivationScan, InPartsAndMergedEqualsAtOnce) {
  constexpr int64_t kRows = 150;  // more than the scanner takes at a time
  const std::vector<float> x = Gaussian(kRows * kWidth, 1, 1.0f);
  const auto errors = Errors({"mxfp4", "nvfp4"});
  ActivationScan once(OneLayer(), errors, Role::kInput, 1), first(once), second(once);
  once.Observe(InputRows(x, kRows));
  for (int64_t row = 0; row < kRows; ++row) {
    model::ObservedRows part = InputRows(x, 1);
    part.x += row * kWidth;
    (row % 2 == 0 ? first : second).Observe(part);
  }
  first.Merge(second);
  EXPECT_EQ(first.rows(), kRows);
  const std::vector<StaticRow> a = once.Rows(), b = first.Rows();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].elements, b[i].elements);
    EXPECT_EQ(a[i].block_row_sqnr_db, b[i].block_row_sqnr_db);
    EXPECT_EQ(a[i].dead_zone, b[i].dead_zone);
    EXPECT_NEAR(a[i].sqnr_db, b[i].sqnr_db, 1e-9);  // sums in another order
    EXPECT_NEAR(a[i].sqnr_db_without_largest, b[i].sqnr_db_without_largest, 1e-9);
  }
  EXPECT_NEAR(a[0].sqnr_db, 18.86, 0.3);
}

TEST(ActivationScan, MemoryDoesNotGrowWithWhatIsSeen) {
  constexpr int64_t kRows = 40;
  const std::vector<float> x = Gaussian(kRows * kWidth, 1, 1.0f);
  ActivationScan scan(OneLayer(), Errors({"mxfp4", "fp8"}), Role::kInput, 1);
  scan.Observe(InputRows(x, kRows));
  const int64_t bytes = scan.bytes();
  for (int i = 0; i < 50; ++i) scan.Observe(InputRows(x, kRows));
  EXPECT_EQ(scan.bytes(), bytes);
  EXPECT_EQ(scan.rows(), 51 * kRows);
  // Four distinct inputs of one layer, for each of two formats.
  EXPECT_LE(scan.bytes(), 8 * numerics::QuantizationStats::kMostBytes);
}

TEST(ActivationScan, TheInputOfQIsThatOfKAndV) {
  const std::vector<float> x = Gaussian(kWidth, 1, 1.0f);
  ActivationScan scan(OneLayer(), Errors({"mxfp4"}), Role::kInput, 1);
  scan.Observe(InputRows(x, 1));
  const std::vector<StaticRow> rows = scan.Rows();
  ASSERT_EQ(rows.size(), std::size(kLinears));
  EXPECT_EQ(rows[0].sqnr_db, rows[1].sqnr_db);
  EXPECT_EQ(rows[0].sqnr_db, rows[2].sqnr_db);
  EXPECT_EQ(rows[0].elements, kWidth);
  EXPECT_EQ(rows[3].elements, 0);  // o was not shown
}

TEST(ActivationScan, LayerOutputsAreScannedInPlaceOfInputs) {
  const std::vector<float> x = Gaussian(kWidth, 1, 1.0f);
  ActivationScan scan(OneLayer(), Errors({"mxfp4"}), Role::kLayerOutput, 1);
  model::ObservedRows rows = InputRows(x, 1);
  scan.Observe(rows);
  rows.point = model::ObservedPoint::kLayerOutput;
  scan.Observe(rows);
  rows.layer = numerics::kNoLayer;  // the embeddings are no layer's output
  scan.Observe(rows);
  ASSERT_EQ(scan.Rows().size(), 1u);
  EXPECT_EQ(scan.Rows()[0].elements, kWidth);
  EXPECT_EQ(scan.rows(), 1);
}

TEST(ScanErrors, AreRefusedWithWhatWasGiven) {
  using enum absl::StatusCode;
  for (const char* text :
       {"mxfp5", "", "relative_gaussian", "relative_gaussian:x", "spike:0.5",
        "relative_gaussian:0.05:3", "deadzone:1.5", "truncation:0", "spike:0.5:0", "spike:0.5:2"}) {
    EXPECT_THAT(ParseScanError(text), StatusIs(kInvalidArgument, HasSubstr(text))) << text;
  }
  const ScanError spike = ParseScanError("spike:0.5:0.001").value();
  EXPECT_EQ(spike.error.type, numerics::ErrorType::kSpike);
  EXPECT_EQ(spike.error.spike_probability, 0.001);
}

}  // namespace
}  // namespace temper::scan
