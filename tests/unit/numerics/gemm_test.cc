#include "numerics/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "numerics/gaussian.h"
#include "tests/unit/numerics/simd_paths.h"

namespace temper::numerics {
namespace {

std::vector<float> Random(int64_t count, uint64_t key) {
  std::vector<float> out(static_cast<size_t>(count));
  FillGaussian(out.data(), count, key, 0);
  return out;
}

struct Shape {
  int64_t M, N, K;
};

TEST(Gemm, EqualsADoublePrecisionProduct) {
  for (const Shape s : {Shape{1, 1, 1}, Shape{7, 16, 5}, Shape{13, 33, 96}, Shape{40, 100, 257},
                        Shape{250, 96, 576}}) {
    const std::vector<float> x = Random(s.M * s.K, 1), w = Random(s.N * s.K, 2);
    const PackedMatrix packed = Pack(w.data(), s.N, s.K);
    std::vector<float> y(static_cast<size_t>(s.M * s.N), -1.0f);
    Gemm(x.data(), s.M, s.K, packed, y.data(), s.N);
    double worst = 0.0;
    for (int64_t m = 0; m < s.M; ++m) {
      for (int64_t n = 0; n < s.N; ++n) {
        double sum = 0.0;
        for (int64_t k = 0; k < s.K; ++k) {
          sum += static_cast<double>(x[static_cast<size_t>(m * s.K + k)]) *
                 w[static_cast<size_t>(n * s.K + k)];
        }
        worst = std::max(worst, std::abs(sum - y[static_cast<size_t>(m * s.N + n)]));
      }
    }
    EXPECT_LT(worst, 2e-6 * static_cast<double>(s.K)) << s.M << " " << s.N << " " << s.K;
  }
}

TEST(Gemm, IsOneChainOfFusedMultiplyAddsOnEveryPath) {
  constexpr int64_t kM = 29, kN = 83, kK = 131;
  const std::vector<float> x = Random(kM * kK, 1), w = Random(kN * kK, 2);
  const PackedMatrix packed = Pack(w.data(), kN, kK);
  for (SimdPath path : Paths()) {
    std::vector<float> y(kM * kN);
    Gemm(x.data(), kM, kK, packed, y.data(), kN, path);
    for (int64_t m = 0; m < kM; ++m) {
      for (int64_t n = 0; n < kN; ++n) {
        float sum = 0.0f;
        for (int64_t k = 0; k < kK; ++k) {
          sum =
              std::fma(x[static_cast<size_t>(m * kK + k)], w[static_cast<size_t>(n * kK + k)], sum);
        }
        ASSERT_EQ(std::bit_cast<uint32_t>(sum),
                  std::bit_cast<uint32_t>(y[static_cast<size_t>(m * kN + n)]))
            << SimdPathName(path) << " " << m << " " << n;
      }
    }
  }
}

TEST(Gemm, ARowIsTheSameBitsWhateverItIsMultipliedWith) {
  constexpr int64_t kM = 201, kN = 112, kK = 96;
  const std::vector<float> x = Random(kM * kK, 3), w = Random(kN * kK, 4);
  const PackedMatrix packed = Pack(w.data(), kN, kK);
  for (SimdPath path : Paths()) {
    std::vector<float> whole(kM * kN);
    Gemm(x.data(), kM, kK, packed, whole.data(), kN, path);
    for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 64, 193}) {
      std::vector<float> part(static_cast<size_t>(rows * kN));
      const int64_t first = kM - rows;
      Gemm(x.data() + first * kK, rows, kK, packed, part.data(), kN, path);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * kN))
          << SimdPathName(path) << " " << rows;
    }
  }
}

TEST(Gemm, HonoursStridesAndWritesOnlyItsOwnColumns) {
  constexpr int64_t kM = 5, kN = 19, kK = 10, kLdx = 14, kLdw = 12, kLdy = 24;
  const std::vector<float> x = Random(kM * kLdx, 5), w = Random(kN * kLdw, 6);
  std::vector<float> dense_x, dense_w;
  for (int64_t m = 0; m < kM; ++m) {
    dense_x.insert(dense_x.end(), x.begin() + m * kLdx, x.begin() + m * kLdx + kK);
  }
  for (int64_t n = 0; n < kN; ++n) {
    dense_w.insert(dense_w.end(), w.begin() + n * kLdw, w.begin() + n * kLdw + kK);
  }
  std::vector<float> expected(kM * kN), y(kM * kLdy, 7.0f);
  Gemm(dense_x.data(), kM, kK, Pack(dense_w.data(), kN, kK), expected.data(), kN);
  Gemm(x.data(), kM, kLdx, Pack(w.data(), kN, kK, kLdw), y.data(), kLdy);
  for (int64_t m = 0; m < kM; ++m) {
    for (int64_t n = 0; n < kLdy; ++n) {
      const float want = n < kN ? expected[static_cast<size_t>(m * kN + n)] : 7.0f;
      EXPECT_EQ(y[static_cast<size_t>(m * kLdy + n)], want) << m << " " << n;
    }
  }
}

TEST(Gemm, AnEmptyInnerSizeGivesZeros) {
  const float nothing = 0.0f;
  std::vector<float> y(6, 1.0f);
  Gemm(&nothing, 2, 0, Pack(&nothing, 3, 0), y.data(), 3);
  EXPECT_EQ(y, std::vector<float>(6, 0.0f));
}

}  // namespace
}  // namespace temper::numerics
