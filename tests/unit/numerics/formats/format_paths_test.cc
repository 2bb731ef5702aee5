// Scalar reference, AVX2 and AVX-512 agree bit for bit on any input.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "numerics/formats/fake_quantize.h"
#include "services/base/random_key.h"
#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics {
namespace {

constexpr int64_t kCount = 20 * 1001;

std::vector<std::vector<float>> Inputs() {
  std::vector<std::vector<float>> inputs = {
      BitPatterns(kCount),       Structured(kCount, 1),     Structured(kCount, 16),
      Structured(kCount, 32),    Structured(kCount, 128),   Structured(kCount, kCount),
      Gaussians(kCount, 0.02f),  StudentT5(kCount, 0.02f),  Gaussians(kCount, 1e-37f),
      Gaussians(kCount, 1e-40f), Gaussians(kCount, 3e-44f), Gaussians(kCount, 1e37f)};
  // Under one finite scale, with the non-finite values of the patterns left out.
  for (const size_t i : {0u, 1u, 5u}) {
    std::vector<float> finite = inputs[i];
    std::replace_if(
        finite.begin(), finite.end(), [](float v) { return !(v - v == 0.0f); }, 1.0f);
    inputs.push_back(finite);
  }
  return inputs;
}

TEST(FormatPaths, WeightsAreTheSameBitsOnEveryPath) {
  const std::vector<std::vector<float>> inputs = Inputs();
  for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
    for (size_t input = 0; input < inputs.size(); ++input) {
      for (const int64_t cols : {1, 15, 33, 1001, 20020}) {
        std::vector<float> x = inputs[input];
        x.resize(x.size() / static_cast<size_t>(cols) * static_cast<size_t>(cols));
        const Quantized expected =
            Quantize(Quantizer(spec, Operand::kWeight, SimdPath::kScalar), x, cols, 5, 6);
        for (const SimdPath path : Paths()) {
          const Quantized q = Quantize(Quantizer(spec, Operand::kWeight, path), x, cols, 5, 6);
          ASSERT_EQ(BitsOf(q.scales), BitsOf(expected.scales))
              << Describe(spec) << " " << SimdPathName(path) << " input " << input << " " << cols;
          ASSERT_EQ(BitsOf(q.values), BitsOf(expected.values))
              << Describe(spec) << " " << SimdPathName(path) << " input " << input << " " << cols;
        }
      }
    }
  }
}

TEST(FormatPaths, ActivationsAreTheSameBitsOnEveryPathInPlaceAndWithStrides) {
  constexpr int64_t kRows = 12, kCols = 1001, kStride = 1003;
  std::vector<RowKey> keys;
  for (uint32_t r = 0; r < kRows; ++r) {
    keys.push_back({.key = base::StochasticRoundingKey(1, r / 4), .position = r, .lane = r % 3});
  }
  for (const FormatSpec& spec : AllSpecs(Operand::kActivation)) {
    for (const std::vector<float>& source : Inputs()) {
      const std::vector<float> x(source.begin(), source.begin() + kRows * kStride);
      const auto run = [&](SimdPath path, bool in_place) {
        std::vector<float> from = x, to = x;
        float* out = in_place ? from.data() : to.data();
        Quantizer(spec, Operand::kActivation, path)
            .QuantizeRows({.x = from.data(),
                           .out = out,
                           .rows = kRows,
                           .cols = kCols,
                           .x_stride = kStride,
                           .out_stride = kStride},
                          keys, 3);
        return BitsOf(in_place ? from : to);
      };
      const std::vector<uint32_t> expected = run(SimdPath::kScalar, false);
      EXPECT_EQ(expected[kCols], BitsOf(x)[kCols]) << "what lies between the rows is not touched";
      for (const SimdPath path : Paths()) {
        ASSERT_EQ(run(path, false), expected) << Describe(spec) << " " << SimdPathName(path);
        ASSERT_EQ(run(path, true), expected) << Describe(spec) << " " << SimdPathName(path);
      }
    }
  }
}

// A weight larger than the caches is written past them; in place it is not.
TEST(FormatPaths, ALargeWeightIsTheSameBitsInPlaceAndOutOfPlace) {
  constexpr int64_t kRows = 4100, kCols = 2064;  // 32.3 MiB
  if (!SimdPathSupported(SimdPath::kAvx2)) GTEST_SKIP() << "no AVX2 on this machine";
  const std::vector<float> x = Gaussians(kRows * kCols, 0.02f);
  const int64_t shape[2] = {kRows, kCols};
  // Only aligned rows can be written so.
  std::vector<float> buffer(x.size() + 16), in_place;
  float* out = buffer.data();
  while (reinterpret_cast<uintptr_t>(out) % 64 != 0) ++out;
  for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
    if (spec.stochastic_rounding) continue;
    in_place = x;
    ASSERT_TRUE(Quantizer(spec, Operand::kWeight, SimdPath::kAvx2)
                    .QuantizeWeight(shape, in_place.data(), in_place.data())
                    .ok());
    for (const SimdPath path : {SimdPath::kAvx2, SimdPath::kAvx512}) {
      if (!SimdPathSupported(path)) continue;
      std::fill(buffer.begin(), buffer.end(), 7.0f);
      ASSERT_TRUE(
          Quantizer(spec, Operand::kWeight, path).QuantizeWeight(shape, x.data(), out).ok());
      EXPECT_TRUE(std::equal(in_place.begin(), in_place.end(), out))
          << Describe(spec) << " " << SimdPathName(path);
    }
  }
}

}  // namespace
}  // namespace temper::numerics
