#pragma once

// RMSNorm with AQN inside it on a device (noise_conformance.h says what that is), held against the
// CPU's norm under ApplyAqn: the same bits.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/kernels/row_kernels.h"
#include "numerics/aqn_draw.h"
#include "numerics/cuda/kernel_arguments.h"
#include "numerics/gaussian.h"

namespace temper::numerics::cuda {

template <class Device>
class NormConformance : public testing::Test {
 protected:
  static constexpr int64_t kRows = 3;
  static constexpr float kEps = 1e-6f;
  static constexpr AqnTarget kNorm = {.layer = 2, .op = Operator::kPostAttentionNorm};

  void SetUp() override {
    const std::string missing = device_.Missing();
    if (!missing.empty()) GTEST_SKIP() << missing;
  }

  template <typename T>
  std::span<T> Copy(const std::vector<T>& from) {
    auto* const to = static_cast<T*>(device_.Allocate(from.size() * sizeof(T)));
    std::copy(from.begin(), from.end(), to);
    return {to, from.size()};
  }

  static std::vector<float> Normals(int64_t count, float scale, float offset) {
    std::vector<float> out(static_cast<size_t>(count));
    FillGaussian(out.data(), count, /*key=*/3, /*site=*/1);
    for (float& v : out) v = v * scale + offset;
    return out;
  }

  // The CPU's norm of row `row` under one draw; sigma 0: clean.
  static void NormRow(const std::vector<float>& gamma, uint64_t key, double sigma, const float* x,
                      float* y, float* inv_rms) {
    std::vector<float> perturbed = gamma;
    ApplyAqn(gamma, perturbed, kNorm, {.key = key, .sigma = sigma}, /*multiplier=*/1.5, nullptr);
    const auto cols = static_cast<int64_t>(gamma.size());
    model::kernels::kScalarKernels.rms_norm(x, 1, cols, cols, perturbed.data(), kEps, y, cols,
                                            inv_rms);
  }

  static NormDraw Draw(uint64_t key, double sigma) {
    return {.key = key, .scale = static_cast<float>(sigma * 1.5)};
  }

  static std::vector<uint32_t> Bits(std::span<const float> values) {
    std::vector<uint32_t> bits;
    for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
    return bits;
  }

  Device device_;
};

TYPED_TEST_SUITE_P(NormConformance);

TYPED_TEST_P(NormConformance, PerturbedRowsAreTheCpusBitForBit) {
  constexpr int64_t kRows = TestFixture::kRows;
  for (const int64_t cols : {1, 15, 16, 96, 576, 1027, 4096, 9000}) {
    const auto width = static_cast<size_t>(cols);
    const std::vector<float> gamma = this->Normals(cols, 0.3f, 1.0f);
    for (const float size : {1.0f, 1e-4f, 1e-25f, 1e18f}) {
      const std::vector<float> x = this->Normals(kRows * cols, size, 0.0f);
      for (const double sigma : {0.0, 0.05}) {
        for (const int64_t draw_stride : {0, 1}) {
          this->device_.FreeAll();
          std::vector<float> expected(x.size()), expected_r(kRows);
          std::vector<NormDraw> draws;
          for (size_t r = 0; r < kRows; ++r) {
            const uint64_t key = draw_stride == 1 ? 70 + r : 70;
            draws.push_back(this->Draw(key, sigma));
            this->NormRow(gamma, key, sigma, x.data() + r * width, expected.data() + r * width,
                          &expected_r[r]);
          }
          const std::span<float> from = this->Copy(x), r = this->Copy(expected_r);
          const std::span<float> to = this->Copy(x), weights = this->Copy(gamma);
          std::fill(r.begin(), r.end(), 0.0f);
          for (float* y : {to.data(), from.data()}) {  // and in place
            ASSERT_TRUE(this->device_
                            .Norm({.x = from.data(),
                                   .y = y,
                                   .gamma = weights.data(),
                                   .rows = kRows,
                                   .cols = cols,
                                   .x_stride = cols,
                                   .y_stride = cols,
                                   .eps = TestFixture::kEps,
                                   .draws = this->Copy(draws).data(),
                                   .draw_stride = draw_stride,
                                   .site = AqnSite(TestFixture::kNorm),
                                   .inv_rms = r.data()})
                            .ok());
            ASSERT_EQ(this->Bits({y, x.size()}), this->Bits(expected)) << cols << " " << size;
            ASSERT_EQ(this->Bits(r), this->Bits(expected_r)) << cols << " " << size;
          }
          ASSERT_EQ(this->Bits(weights), this->Bits(gamma)) << "the clean weight was written";
        }
      }
    }
  }
}

TYPED_TEST_P(NormConformance, ADrawIsReadWhenTheKernelRuns) {
  constexpr int64_t kCols = 100;
  const std::vector<float> gamma = this->Normals(kCols, 0.3f, 1.0f);
  const std::vector<float> x = this->Normals(kCols, 2.0f, 0.0f);
  const std::span<NormDraw> draw = this->Copy(std::vector<NormDraw>(1));
  const std::span<float> from = this->Copy(x), to = this->Copy(x);
  const NormArguments launch = {.x = from.data(),
                                .y = to.data(),
                                .gamma = this->Copy(gamma).data(),
                                .rows = 1,
                                .cols = kCols,
                                .x_stride = kCols,
                                .y_stride = kCols,
                                .eps = TestFixture::kEps,
                                .draws = draw.data(),
                                .site = AqnSite(TestFixture::kNorm)};
  std::vector<std::vector<uint32_t>> seen;
  for (const uint64_t version : {1, 2, 3}) {
    const double sigma = version == 3 ? 0.0 : 0.05;
    draw[0] = this->Draw(version, sigma);
    ASSERT_TRUE(this->device_.Norm(launch).ok());
    std::vector<float> expected(kCols);
    this->NormRow(gamma, version, sigma, x.data(), expected.data(), nullptr);
    EXPECT_EQ(this->Bits(to), this->Bits(expected)) << version;
    seen.push_back(this->Bits(to));
  }
  EXPECT_NE(seen[0], seen[1]);
  EXPECT_NE(seen[1], seen[2]);
}

REGISTER_TYPED_TEST_SUITE_P(NormConformance, PerturbedRowsAreTheCpusBitForBit,
                            ADrawIsReadWhenTheKernelRuns);

}  // namespace temper::numerics::cuda
