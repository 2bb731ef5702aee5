#pragma once

// What a device's noise must do, held against the CPU's kernels: the same bits and the same counts.
// Typed over where it runs: EmulatedDevice (emulated_noise_test.cc, any machine) and CudaDevice
// (device_noise_test.cc). A Device has
//   std::string Missing() const           why its tests cannot run here; empty: they can
//   void* Allocate(size_t bytes)          zeroed, for host and device, until FreeAll()
//   absl::Status Error(a), Norm(a), Quantize(a)       to their end
//   static constexpr bool kKeepsNanBits   else a NaN is any NaN

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "numerics/cuda/launch_checks.h"
#include "numerics/gaussian.h"
#include "numerics/operator_error.h"
#include "numerics/site.h"
#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics::cuda {

inline constexpr uint32_t kSite = Site(3, Operator::kDown, TensorRole::kOutput);

// One of every kind, large enough to act on normals in short rows.
inline std::vector<OperatorError> AllErrors() {
  return {{.type = ErrorType::kRelativeGaussian, .strength = 0.05f},
          {.type = ErrorType::kAbsoluteGaussian, .strength = 0.1f},
          {.type = ErrorType::kSystematicBias, .strength = 0.05f},
          {.type = ErrorType::kSystematicBias, .strength = 0.05f, .relative = true},
          {.type = ErrorType::kTruncation, .strength = 0.25f},
          {.type = ErrorType::kDeadzone, .strength = 0.2f},
          {.type = ErrorType::kSaturation, .strength = 0.3f},
          {.type = ErrorType::kSpike, .strength = 0.5f, .spike_probability = 0.2},
          {.type = ErrorType::kSpike, .strength = 0.5f, .spike_probability = 1.0}};
}

// Ordinary numbers, any bits, numbers of all magnitudes with ties, tiny and huge ones.
inline std::vector<std::vector<float>> Inputs(int64_t count) {
  return {Gaussians(count, 1.0f),      BitPatterns(count),       Structured(count, 16),
          Structured(count, 128, 5),   Structured(count, count), Gaussians(count, 1e-40f),
          Gaussians(count, 1e-21f, 3), Gaussians(count, 1e30f),  StudentT5(count, 0.02f)};
}

inline std::vector<RowKey> Keys(int64_t rows, uint64_t first_key) {
  std::vector<RowKey> keys;
  for (uint32_t r = 0; r < rows; ++r) {
    keys.push_back(
        {.key = (first_key + r / 2) * 0x9e3779b97f4a7c15u, .position = 100 + r, .lane = r % 3});
  }
  return keys;
}

template <class Device>
class NoiseConformance : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = device_.Missing();
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  template <typename T>
  std::span<T> Make(size_t count) {
    return {static_cast<T*>(device_.Allocate(count * sizeof(T))), count};
  }
  template <typename T>
  std::span<T> Copy(const std::vector<T>& from) {
    const std::span<T> to = Make<T>(from.size());
    std::copy(from.begin(), from.end(), to.begin());
    return to;
  }

  static std::vector<uint32_t> Bits(std::span<const float> values) {
    std::vector<uint32_t> bits;
    for (const float value : values) {
      const bool any_nan = !Device::kKeepsNanBits && std::isnan(value);
      bits.push_back(any_nan ? 0x7fc00000u : std::bit_cast<uint32_t>(value));
    }
    return bits;
  }

  Device device_;
};

TYPED_TEST_SUITE_P(NoiseConformance);

TYPED_TEST_P(NoiseConformance, NormalsAreTheCpusBitForBit) {
  // fma(1, n, 0) is n, but for the sign of a zero.
  constexpr int64_t kRows = 64, kCols = 4096;
  const std::vector<RowKey> keys = Keys(kRows, 77);
  const std::span<float> y = this->template Make<float>(kRows * kCols);
  const std::span<RowKey> row_keys = this->Copy(keys);
  const std::span<ErrorParameters> parameters = this->template Make<ErrorParameters>(1);
  parameters[0] = {.strength = 1.0f};
  for (const uint32_t site : {0u, kSite, 0xffffffffu}) {
    std::fill(y.begin(), y.end(), 0.0f);
    ASSERT_TRUE(this->device_
                    .Error({.type = ErrorType::kAbsoluteGaussian,
                            .y = y.data(),
                            .rows = kRows,
                            .cols = kCols,
                            .row_stride = kCols,
                            .row_keys = row_keys.data(),
                            .parameters = parameters.data(),
                            .site = site})
                    .ok());
    std::vector<float> normals(kCols);
    for (size_t r = 0; r < kRows; ++r) {
      FillGaussian(normals.data(), kCols, keys[r].key, site, keys[r].position, keys[r].lane);
      for (size_t c = 0; c < kCols; ++c) ASSERT_EQ(y[r * kCols + c], normals[c]) << r << " " << c;
    }
  }
}

TYPED_TEST_P(NoiseConformance, ErrorsAndTheirCountsAreTheCpus) {
  constexpr int64_t kRows = 5;
  const std::vector<RowKey> keys = Keys(kRows, 10);
  const std::span<RowKey> row_keys = this->Copy(keys);
  const std::span<ErrorParameters> parameters = this->template Make<ErrorParameters>(1);
  const std::span<uint32_t> maxima = this->template Make<uint32_t>(kRows);
  const std::span<RowCounts> counts = this->template Make<RowCounts>(kRows);
  for (const int64_t cols : {1, 3, 15, 16, 96, 1023, 1024, 1030, 2500}) {
    const int64_t stride = cols + cols % 2 * 3;
    const std::span<float> y = this->template Make<float>(static_cast<size_t>(kRows * stride));
    for (const std::vector<float>& x : Inputs(kRows * stride)) {
      for (const OperatorError& error : AllErrors()) {
        std::vector<float> expected = x;
        ErrorStats expected_counts;
        ApplyError(error, expected.data(), kRows, cols, stride, keys, kSite, &expected_counts);
        std::copy(x.begin(), x.end(), y.begin());
        std::fill(counts.begin(), counts.end(), RowCounts());
        parameters[0] = MakeErrorParameters(error).value();
        ASSERT_TRUE(this->device_
                        .Error({.type = error.type,
                                .relative = error.relative,
                                .y = y.data(),
                                .rows = kRows,
                                .cols = cols,
                                .row_stride = stride,
                                .row_keys = row_keys.data(),
                                .parameters = parameters.data(),
                                .site = kSite,
                                .row_maxima = maxima.data(),
                                .counts = counts.data()})
                        .ok());
        ASSERT_EQ(this->Bits(y), this->Bits(expected)) << DescribeError(error) << " " << cols;
        ASSERT_EQ(CountsOfRows(counts), expected_counts) << DescribeError(error) << " " << cols;
      }
    }
  }
}

// Types without a row maximum: elements are numbered through, so a weight is one long row.
TYPED_TEST_P(NoiseConformance, AWholeWeightIsOneRow) {
  constexpr int64_t kOut = 7, kIn = 301, kCount = kOut * kIn;
  const std::span<RowKey> row_key = this->Copy(std::vector<RowKey>{{.key = 9}});
  const std::span<ErrorParameters> parameters = this->template Make<ErrorParameters>(1);
  const std::span<RowCounts> counts = this->template Make<RowCounts>(1);
  for (const OperatorError& error : AllErrors()) {
    if (error.type == ErrorType::kDeadzone || error.type == ErrorType::kSaturation ||
        error.type == ErrorType::kSpike) {
      continue;
    }
    std::vector<float> expected = Gaussians(kCount, 0.5f);
    const std::span<float> w = this->Copy(expected);
    ErrorStats expected_counts;
    ApplyErrorToWeight(error, expected.data(), kOut, kIn, 9, kSite, &expected_counts);
    counts[0] = {};
    parameters[0] = MakeErrorParameters(error).value();
    ASSERT_TRUE(this->device_
                    .Error({.type = error.type,
                            .relative = error.relative,
                            .y = w.data(),
                            .rows = 1,
                            .cols = kCount,
                            .row_keys = row_key.data(),
                            .parameters = parameters.data(),
                            .site = kSite,
                            .counts = counts.data()})
                    .ok());
    EXPECT_EQ(this->Bits(w), this->Bits(expected)) << DescribeError(error);
    EXPECT_EQ(CountsOfRows(counts), expected_counts) << DescribeError(error);
  }
}

TYPED_TEST_P(NoiseConformance, KeysAndStrengthAreReadWhenAKernelRuns) {
  constexpr int64_t kCols = 200;
  const std::span<RowKey> row_keys = this->template Make<RowKey>(1);
  const std::span<ErrorParameters> parameters = this->template Make<ErrorParameters>(1);
  const std::span<RowCounts> counts = this->template Make<RowCounts>(1);
  const std::span<float> y = this->template Make<float>(kCols);
  const ErrorArguments launch = {.y = y.data(),
                                 .rows = 1,
                                 .cols = kCols,
                                 .row_stride = kCols,
                                 .row_keys = row_keys.data(),
                                 .parameters = parameters.data(),
                                 .site = kSite,
                                 .counts = counts.data()};
  const std::vector<float> x = Gaussians(kCols, 1.0f);
  ErrorStats expected_counts;
  for (uint32_t step = 0; step < 4; ++step) {
    const OperatorError error = {.strength = step == 3 ? 0.0f : 0.05f};
    const RowKey key = {.key = 9, .position = step, .lane = 1};
    row_keys[0] = key;
    parameters[0] = {.strength = error.strength};
    std::copy(x.begin(), x.end(), y.begin());
    ASSERT_TRUE(this->device_.Error(launch).ok());
    std::vector<float> expected = x;
    ApplyError(error, expected.data(), 1, kCols, kCols, {&key, 1}, kSite, &expected_counts);
    EXPECT_EQ(this->Bits(y), this->Bits(expected)) << step;
    EXPECT_EQ(CountsOfRows(counts), expected_counts) << step;
  }
  EXPECT_EQ(expected_counts.calls, 4u);
}

TYPED_TEST_P(NoiseConformance, SumsSaturateWhereTheCpusDo) {
  constexpr int64_t kRows = 3, kCols = 3000;
  const std::vector<RowKey> keys = Keys(kRows, 4);
  const std::span<RowKey> row_keys = this->Copy(keys);
  const std::span<ErrorParameters> parameters = this->template Make<ErrorParameters>(1);
  parameters[0] = {.strength = 0.5f};
  for (const float size : {1e2f, 5e6f, 1.2e7f, 1e8f, 1e30f}) {
    const std::span<RowCounts> counts = this->template Make<RowCounts>(kRows);
    std::vector<float> x(kRows * kCols, size);
    const std::span<float> y = this->Copy(x);
    ErrorStats expected;
    // Twice, so that saturated sums are added to.
    for (int call = 0; call < 2; ++call) {
      ApplyError({.strength = 0.5f}, x.data(), kRows, kCols, kCols, keys, kSite, &expected);
      ASSERT_TRUE(this->device_
                      .Error({.y = y.data(),
                              .rows = kRows,
                              .cols = kCols,
                              .row_stride = kCols,
                              .row_keys = row_keys.data(),
                              .parameters = parameters.data(),
                              .site = kSite,
                              .counts = counts.data()})
                      .ok());
    }
    EXPECT_EQ(CountsOfRows(counts), expected) << size;
  }
}

REGISTER_TYPED_TEST_SUITE_P(NoiseConformance, NormalsAreTheCpusBitForBit,
                            ErrorsAndTheirCountsAreTheCpus, AWholeWeightIsOneRow,
                            KeysAndStrengthAreReadWhenAKernelRuns, SumsSaturateWhereTheCpusDo);

}  // namespace temper::numerics::cuda
