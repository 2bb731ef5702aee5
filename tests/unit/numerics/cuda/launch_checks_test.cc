#include "numerics/cuda/launch_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace temper::numerics::cuda {
namespace {

using testing::HasSubstr;

// Never followed.
float* const kSomewhere = reinterpret_cast<float*>(64);

ErrorArguments GoodError() {
  return {.type = ErrorType::kSpike,
          .y = kSomewhere,
          .rows = 4,
          .cols = 100,
          .row_stride = 100,
          .row_keys = reinterpret_cast<RowKey*>(kSomewhere),
          .parameters = reinterpret_cast<ErrorParameters*>(kSomewhere),
          .row_maxima = reinterpret_cast<uint32_t*>(kSomewhere)};
}

NormArguments GoodNorm() {
  return {.x = kSomewhere,
          .y = kSomewhere,
          .gamma = kSomewhere,
          .rows = 4,
          .cols = 100,
          .x_stride = 100,
          .y_stride = 100,
          .eps = 1e-6f};
}

QuantizeArguments GoodQuantize() {
  return {.format = QuantizeFormat::kNvfp4,
          .span = QuantizeSpan::kTensor,
          .stochastic = true,
          .x = kSomewhere,
          .out = kSomewhere,
          .rows = 4,
          .cols = 100,
          .x_stride = 100,
          .out_stride = 100,
          .tensor_amax = reinterpret_cast<TensorAmax*>(kSomewhere),
          .row_keys = reinterpret_cast<RowKey*>(kSomewhere),
          .element_stride = 100,
          .key_stride = 0};
}

void ExpectRefused(const absl::Status& status, const std::string& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

TEST(LaunchChecks, WholeLaunchesPass) {
  EXPECT_TRUE(CheckError(GoodError()).ok());
  EXPECT_TRUE(CheckNorm(GoodNorm()).ok());
  EXPECT_TRUE(CheckQuantize(GoodQuantize()).ok());
}

TEST(LaunchChecks, AnErrorWithoutWhatItReadsIsRefusedByField) {
  const auto refused = [](auto change, const std::string& words) {
    ErrorArguments a = GoodError();
    change(&a);
    ExpectRefused(CheckError(a), words);
  };
  refused([](ErrorArguments* a) { a->y = nullptr; }, "y is null");
  refused([](ErrorArguments* a) { a->row_keys = nullptr; }, "row_keys");
  refused([](ErrorArguments* a) { a->parameters = nullptr; }, "parameters");
  refused([](ErrorArguments* a) { a->row_maxima = nullptr; }, "row_maxima");
  refused([](ErrorArguments* a) { a->rows = 0; }, "0 x 100");
  refused([](ErrorArguments* a) { a->row_stride = 99; }, "row_stride 99");
  refused([](ErrorArguments* a) { a->type = static_cast<ErrorType>(7); }, "error type 7");
  refused(
      [](ErrorArguments* a) {
        a->rows = 1;
        a->cols = (int64_t{1} << 34) + 1;
      },
      "2^34");
}

TEST(LaunchChecks, OnlyTypesThatReadTheMaximumNeedRoomForIt) {
  ErrorArguments a = GoodError();
  a.row_maxima = nullptr;
  a.type = ErrorType::kTruncation;
  EXPECT_TRUE(CheckError(a).ok());
}

TEST(LaunchChecks, MoreBlocksThanALaunchHoldsAreRefused) {
  ErrorArguments a = GoodError();
  a.cols = a.row_stride = 2048;
  a.rows = std::numeric_limits<int32_t>::max() / 2;
  EXPECT_TRUE(CheckError(a).ok());
  ++a.rows;
  EXPECT_EQ(CheckError(a).code(), absl::StatusCode::kResourceExhausted);
}

TEST(LaunchChecks, ANormIsRefusedByField) {
  const auto refused = [](auto change, const std::string& words) {
    NormArguments a = GoodNorm();
    change(&a);
    ExpectRefused(CheckNorm(a), words);
  };
  refused([](NormArguments* a) { a->x = nullptr; }, "x is null");
  refused([](NormArguments* a) { a->y = nullptr; }, "y is null");
  refused([](NormArguments* a) { a->gamma = nullptr; }, "gamma");
  refused([](NormArguments* a) { a->eps = 0.0f; }, "eps");
  refused([](NormArguments* a) { a->draw_stride = 2; }, "draw_stride 2");
  refused([](NormArguments* a) { a->y_stride = 1; }, "y_stride 1");
  refused([](NormArguments* a) { a->y_stride = 101; }, "in place with strides of 100 and 101");
}

TEST(LaunchChecks, AQuantizationIsRefusedByField) {
  const auto refused = [](auto change, const std::string& words) {
    QuantizeArguments a = GoodQuantize();
    change(&a);
    ExpectRefused(CheckQuantize(a), words);
  };
  refused([](QuantizeArguments* a) { a->x = nullptr; }, "x is null");
  refused([](QuantizeArguments* a) { a->out = nullptr; }, "out is null");
  refused([](QuantizeArguments* a) { a->tensor_amax = nullptr; }, "tensor_amax");
  refused([](QuantizeArguments* a) { a->row_keys = nullptr; }, "row_keys");
  refused([](QuantizeArguments* a) { a->element_stride = int64_t{1} << 34; }, "element_stride");
  refused([](QuantizeArguments* a) { a->out_stride = 3; }, "out_stride 3");
  refused([](QuantizeArguments* a) { a->out_stride = 104; }, "in place with strides");
}

TEST(LaunchChecks, ParametersAreMadeOfErrorsInRange) {
  EXPECT_EQ(MakeErrorParameters({.strength = 0.05f})->strength, 0.05f);
  const auto last_struck = [](double p) {
    return MakeErrorParameters(
               {.type = ErrorType::kSpike, .strength = 1.0f, .spike_probability = p})
        ->last_struck;
  };
  EXPECT_EQ(last_struck(0.5), 0x7fffffffu);
  EXPECT_EQ(last_struck(1.0), 0xffffffffu);
  EXPECT_EQ(last_struck(1e-12), 0u);
  ExpectRefused(MakeErrorParameters({.strength = -1.0f}).status(), "error_scale");
  EXPECT_TRUE(absl::IsUnimplemented(
      MakeErrorParameters({.strength = 0.05f, .draw = GaussianDraw::kFast}).status()));
}

TEST(LaunchChecks, FormatsBecomeArgumentsOrSayWhyNot) {
  const QuantizeArguments a =
      MakeQuantizeArguments({.format = NumberFormat::kNvfp4, .stochastic_rounding = true},
                            Operand::kActivation)
          .value();
  EXPECT_EQ(a.format, QuantizeFormat::kNvfp4);
  EXPECT_EQ(a.span, QuantizeSpan::kRow);
  EXPECT_TRUE(a.stochastic);
  const FormatSpec tiles = {.format = NumberFormat::kMxfp4, .block_2d = true};
  EXPECT_EQ(MakeQuantizeArguments(tiles, Operand::kWeight).status().code(),
            absl::StatusCode::kUnimplemented);
  ExpectRefused(MakeQuantizeArguments({.block_size = 7}, Operand::kWeight).status(), "block size");
}

TEST(LaunchChecks, CountsOfAGroupsRowsAreOneInjectionPerCall) {
  const RowCounts rows[2] = {
      {.calls = 3, .elements = 30, .changed = 7, .sum_sq_error = {.low = ~0ull, .high = 1}},
      {.calls = 3, .elements = 30, .non_finite = 1, .sum_sq_error = {.low = 1}}};
  const ErrorStats stats = CountsOfRows(rows);
  EXPECT_EQ(stats.calls, 3u);
  EXPECT_EQ(stats.elements, 60u);
  EXPECT_EQ(stats.changed, 7u);
  EXPECT_EQ(stats.non_finite, 1u);
  EXPECT_EQ(stats.sum_sq_error.high(), 2u);
  EXPECT_EQ(stats.sum_sq_error.low(), 0u);
}

TEST(LaunchChecks, ASumThatLeftItsHighWordIsSaturated) {
  const RowCounts row = {.sum_sq_value = {.low = 5, .high = 7, .above = 1}};
  EXPECT_EQ(CountsOfRows({&row, 1}).sum_sq_value.value(), 0x1p57);
}

}  // namespace
}  // namespace temper::numerics::cuda
