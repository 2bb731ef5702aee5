#include "numerics/formats/fake_quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "numerics/formats/number_codes.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr FormatSpec kMx = {.format = NumberFormat::kMxfp4};
constexpr FormatSpec kNv = {.format = NumberFormat::kNvfp4};
constexpr FormatSpec kFp8 = {.format = NumberFormat::kFp8};
constexpr FormatSpec kTiles = {.format = NumberFormat::kMxfp4, .block_2d = true};

std::vector<float> Q(const FormatSpec& spec, const std::vector<float>& x, int64_t cols) {
  return Quantize(Quantizer(spec), x, cols).values;
}

TEST(Mxfp4, ScalesABlockByThePowerOfTwoThatPutsItsLargestIntoFourToEight) {
  // Largest 7 -> exponent floor(log2 7) - 2 = 0; 5 is a tie, 7 saturates.
  std::vector<float> x = {7.0f, 0.2f, 0.3f, -2.6f, 5.0f, 0.75f};
  const Quantized q = Quantize(Quantizer(kMx), x, 6);
  EXPECT_THAT(q.values, ElementsAre(6.0f, 0.0f, 0.5f, -3.0f, 4.0f, 1.0f));
  EXPECT_THAT(q.scales, ElementsAre(1.0f));
  for (float& value : x) value *= 0x1p-20f;
  EXPECT_THAT(Q(kMx, x, 6), ElementsAre(6 * 0x1p-20f, 0.0f, 0.5f * 0x1p-20f, -3 * 0x1p-20f,
                                        4 * 0x1p-20f, 0x1p-20f));
}

TEST(Mxfp4, TheLeastScaleIsTwoToTheMinus127) {
  const Quantized q = Quantize(Quantizer(kMx), {0x1p-149f, 0x1p-127f, -0x1p-128f, 0x1p-129f}, 4);
  EXPECT_THAT(q.scales, ElementsAre(0x1p-127f));
  EXPECT_THAT(q.values, ElementsAre(0.0f, 0x1p-127f, -0x1p-128f, 0.0f));
  const float largest = std::numeric_limits<float>::max();
  EXPECT_THAT(Q(kMx, {largest, -largest}, 2), ElementsAre(0x1.8p127f, -0x1.8p127f));
}

TEST(Nvfp4, HasAnE4M3ScalePerBlockUnderOneOfTheTensor) {
  std::vector<float> x(32, 0.0f);
  x[0] = 2688.0f;  // S = 1, the first block's scale 448
  x[1] = 448.0f;
  x[16] = 6.4f;  // 6.4 / 6 rounds to the code of 1.125 (steps of 1/8): 5.69 of it round to 6
  x[17] = 1.0f;
  const Quantized q = Quantize(Quantizer(kNv), x, 32);
  EXPECT_THAT(q.scales, ElementsAre(448.0f, 1.125f));
  EXPECT_EQ(q.values[0], 2688.0f);
  EXPECT_EQ(q.values[1], 448.0f);
  EXPECT_EQ(q.values[16], 6.75f);
  EXPECT_EQ(q.values[17], 1.125f);
}

TEST(Nvfp4, BlocksFarBelowTheTensorsLargestHaveTheLeastE4M3Scale) {
  std::vector<float> x(32, 0.0f);
  x[0] = 2688.0f;
  x[16] = 0x1p-9f;  // r = 2^-9 / 6, raised to 2^-9
  x[17] = 0x1p-12f;
  const Quantized q = Quantize(Quantizer(kNv), x, 32);
  EXPECT_EQ(q.scales[1], 0x1p-9f);
  EXPECT_EQ(q.values[16], 0x1p-9f);
  EXPECT_EQ(q.values[17], 0.0f);
}

TEST(Nvfp4, OfAnActivationARowDoesNotSeeItsNeighbours) {
  const std::vector<float> small = Gaussians(64, 0.02f);
  const FakeQuantizer quantizer = Quantizer(kNv, Operand::kActivation);
  std::vector<float> alone(64), both(128), call = small;
  quantizer.QuantizeRows({.x = small.data(), .out = alone.data(), .rows = 1, .cols = 64}, {}, 0);
  for (const float value : small) call.push_back(value * 1e4f);
  quantizer.QuantizeRows({.x = call.data(),
                          .out = both.data(),
                          .rows = 2,
                          .cols = 64,
                          .x_stride = 64,
                          .out_stride = 64},
                         {}, 0);
  both.resize(64);
  EXPECT_EQ(BitsOf(both), BitsOf(alone));
}

TEST(Fp8, IsScaledOverTensorRowOrBlock) {
  std::vector<float> x(256, 1.0f);
  x[0] = 448.0f;
  x[128] = 2.0f;
  const auto scales = [&](ScaleSpan span, int64_t cols) {
    return Quantize(Quantizer({.format = NumberFormat::kFp8, .scale_span = span}), x, cols).scales;
  };
  EXPECT_THAT(scales(ScaleSpan::kTensor, 128), ElementsAre(1.0f, 1.0f));
  EXPECT_THAT(scales(ScaleSpan::kRow, 128), ElementsAre(1.0f, 2.0f / 448));
  EXPECT_THAT(scales(ScaleSpan::kRow, 256), ElementsAre(1.0f));
  EXPECT_THAT(scales(ScaleSpan::kBlock, 256), ElementsAre(1.0f, 2.0f / 448));
}

TEST(Fp8, RoundsTheScaledValueToE4M3) {
  const std::vector<float> x = {448.0f, 17.0f, 19.0f, -18.0f, 0x1p-10f, 0x1.8p-10f, 3 * 0x1p-9f};
  EXPECT_THAT(Q(kFp8, x, 7), ElementsAre(448.0f, 16.0f, 20.0f, -18.0f, 0.0f, 0x1p-9f, 3 * 0x1p-9f));
}

TEST(FakeQuantize, ZeroBlocksAndZeroTensorsStayZeroWithTheirSigns) {
  for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
    std::vector<float> x(3 * 200, 0.0f);
    x[7] = -0.0f;
    for (const SimdPath path : Paths()) {
      const Quantized q = Quantize(Quantizer(spec, Operand::kWeight, path), x, 200);
      EXPECT_EQ(BitsOf(q.values), BitsOf(x)) << Describe(spec) << " " << SimdPathName(path);
    }
    x[599] = 3.0f;
    const std::vector<float> q = Quantize(Quantizer(spec), x, 200).values;
    EXPECT_EQ(std::count(q.begin(), q.end(), 0.0f), 599) << Describe(spec);
  }
}

TEST(FakeQuantize, ABlockWithInfinityOrNanIsNanAndOthersAreNot) {
  for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
      std::vector<float> x = Gaussians(64 * 300, 1.0f);
      x[300 + 140] = bad;
      const std::vector<float> q = Quantize(Quantizer(spec), x, 300).values;
      const int64_t block = BlockSize(spec.format);
      const ScaleSpan span = ResolvedSpan(spec, Operand::kWeight);
      for (int64_t r = 0; r < 64; ++r) {
        for (int64_t c = 0; c < 300; ++c) {
          const bool same_row = spec.block_2d ? r < 32 : r == 1;
          const bool same_block = c / block == 140 / block;
          const bool fp8 = spec.format == NumberFormat::kFp8;
          const bool hit = fp8 && span == ScaleSpan::kTensor ? true
                           : fp8 && span == ScaleSpan::kRow  ? same_row
                                                             : same_row && same_block;
          ASSERT_EQ(std::isnan(q[static_cast<size_t>(r * 300 + c)]), hit)
              << Describe(spec) << " " << r << " " << c;
        }
      }
    }
  }
}

TEST(FakeQuantize, TailBlocksAreScaledByThemselves) {
  // 35 columns: MXFP4's second block holds three values.
  std::vector<float> x(35, 100.0f);
  x[32] = 0.01f;
  x[33] = 0.02f;
  x[34] = 0.0f;
  const Quantized q = Quantize(Quantizer(kMx), x, 35);
  EXPECT_THAT(q.scales, ElementsAre(16.0f, 0x1p-8f));
  EXPECT_EQ(q.values[33], 6 * 0x1p-8f);  // 0.02 is 5.12 of 2^-8
  for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
    if (spec.stochastic_rounding || ResolvedSpan(spec, Operand::kWeight) != ScaleSpan::kBlock) {
      continue;
    }
    const int64_t block = BlockSize(spec.format);
    const std::vector<float> whole = Gaussians(block + 5, 0.1f);
    const std::vector<float> tail(whole.begin() + block, whole.end());
    const std::vector<float> q_whole = Q(spec, whole, block + 5);
    EXPECT_EQ(BitsOf({q_whole.begin() + block, q_whole.end()}), BitsOf(Q(spec, tail, 5)));
  }
}

TEST(FakeQuantize, TilesShareOneScaleOver32RowsAndColumns) {
  std::vector<float> x = Gaussians(40 * 70, 1.0f);
  x[3 * 70 + 40] = 100.0f;  // row 3, second tile of columns
  const Quantized tiles = Quantize(Quantizer(kTiles), x, 70);
  for (int64_t r = 0; r < 40; ++r) {
    for (int64_t tile = 0; tile < 3; ++tile) {
      int64_t top = r / 32 * 32;
      EXPECT_EQ(tiles.scales[r * 3 + tile], tiles.scales[top * 3 + tile]) << r;
    }
  }
  EXPECT_EQ(tiles.scales[31 * 3 + 1], 16.0f);
  EXPECT_LT(tiles.scales[32 * 3 + 1], 2.0f);
  // A tile is what a block of the same values would be.
  std::vector<float> one_tile;
  for (int64_t r = 0; r < 32; ++r) {
    for (int64_t c = 32; c < 64; ++c) one_tile.push_back(x[r * 70 + c]);
  }
  const float scale = tiles.scales[1];
  for (size_t i = 0; i < one_tile.size(); ++i) {
    const float expected = DecodeE2M1(EncodeE2M1(one_tile[i] / scale)) * scale;
    EXPECT_EQ(tiles.values[i / 32 * 70 + 32 + i % 32], expected) << i;
  }
}

TEST(FakeQuantize, TwiceIsOnceForMxfp4AndFp8OnAnyBits) {
  for (FormatSpec spec : AllSpecs(Operand::kWeight)) {
    if (spec.stochastic_rounding || spec.format == NumberFormat::kNvfp4) continue;
    for (const std::vector<float>& x :
         {BitPatterns(1 << 16), Structured(1 << 16, 1), Structured(1 << 16, 32),
          Structured(1 << 16, 128), Gaussians(1 << 16, 0.02f), StudentT5(1 << 16, 1e-36f)}) {
      for (const int64_t cols : {1, 32, 100, 256}) {
        std::vector<float> even = x;
        even.resize(x.size() / cols * cols);
        const std::vector<float> once = Q(spec, even, cols);
        EXPECT_EQ(BitsOf(Q(spec, once, cols)), BitsOf(once)) << Describe(spec) << " " << cols;
      }
    }
  }
}

TEST(FakeQuantize, TwiceIsOnceForNvfp4UnderTheSameTensorScale) {
  const FakeQuantizer quantizer = Quantizer(kNv);
  const std::vector<float> x = StudentT5(1 << 18, 0.02f);
  const auto once_more = [&](const std::vector<float>& from, const Amax& amax) {
    std::vector<float> to(from.size());
    quantizer.QuantizePart({.x = from.data(), .out = to.data(), .rows = 1, .cols = 1 << 18},
                           {.amax = amax});
    return to;
  };
  const Amax amax = quantizer.PartAmax(x.data(), 1, 1 << 18, 1 << 18);
  const std::vector<float> once = once_more(x, amax);
  EXPECT_EQ(BitsOf(once_more(once, amax)), BitsOf(once));
  // Under a scale taken anew the codes stay; S itself may move by a rounding.
  const Quantized first = Quantize(quantizer, x, 1 << 18);
  const Quantized second = Quantize(quantizer, first.values, 1 << 18);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(second.values[i], first.values[i], std::abs(first.values[i]) * 0x1p-22f);
  }
}

TEST(FakeQuantize, RefusesWhatDoesNotExistWithItsReason) {
  const auto refused = [](const FormatSpec& spec, Operand operand, const std::string& reason) {
    EXPECT_THAT(FakeQuantizer::Create(spec, operand),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
  };
  using enum NumberFormat;
  const Operand weight = Operand::kWeight, activation = Operand::kActivation;
  refused({.format = kMxfp4, .block_size = 16}, weight, "block size 16: mxfp4 has blocks of 32");
  refused({.format = kNvfp4, .block_size = 32}, weight, "nvfp4 has blocks of 16");
  refused({.format = NumberFormat::kFp8, .block_size = 64}, weight, "fp8 has blocks of 128");
  refused({.format = kNvfp4, .block_2d = true}, weight, "nvfp4 has none");
  refused({.format = kMxfp4, .block_2d = true}, activation, "mix tokens");
  refused({.format = kMxfp4, .scale_span = ScaleSpan::kTensor}, weight, "scaled by block");
  refused({.format = kNvfp4, .scale_span = ScaleSpan::kBlock}, weight, "tensor or the row");
  refused({.format = kNvfp4, .scale_span = ScaleSpan::kTensor}, activation, "other rows");
  refused({.format = NumberFormat::kFp8, .scale_span = ScaleSpan::kTensor}, activation,
          "other rows");
  EXPECT_THAT(FakeQuantizer::Create({.format = kMxfp4, .block_size = 32}, weight), IsOk());

  const std::vector<float> x(40, 1.0f);
  std::vector<float> out(40);
  const auto shaped = [&](const FormatSpec& spec, std::vector<int64_t> shape) {
    return Quantizer(spec).QuantizeWeight(shape, x.data(), out.data());
  };
  EXPECT_THAT(shaped(kTiles, {40}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("vector")));
  EXPECT_THAT(shaped(kMx, {2, 4, 5}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 dimensions")));
  EXPECT_THAT(shaped(kMx, {40}), IsOk());
  EXPECT_THAT(shaped(kTiles, {5, 8}), IsOk());
}

TEST(FakeQuantize, IsTheSameBitsForOneThreadAndFour) {
  constexpr int64_t kRows = 130, kCols = 300;
  const std::vector<float> x = StudentT5(kRows * kCols, 0.02f);
  for (const FormatSpec& spec : AllSpecs(Operand::kWeight)) {
    const FakeQuantizer quantizer = Quantizer(spec);
    const std::vector<float> expected = Quantize(quantizer, x, kCols, 7, 9).values;
    std::vector<float> out(x.size());
    const int64_t starts[5] = {0, 32, 64, 96, kRows};
    Amax parts[4];
    const auto on_four_threads = [&](auto body) {
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] { body(t, starts[t], starts[t + 1] - starts[t]); });
      }
      for (std::thread& thread : threads) thread.join();
    };
    on_four_threads([&](int t, int64_t first, int64_t rows) {
      parts[t] = quantizer.PartAmax(x.data() + first * kCols, rows, kCols, kCols);
    });
    Amax amax;
    for (const Amax& part : parts) amax.Merge(part);
    on_four_threads([&](int, int64_t first, int64_t rows) {
      quantizer.QuantizePart({.x = x.data() + first * kCols,
                              .out = out.data() + first * kCols,
                              .rows = rows,
                              .cols = kCols,
                              .x_stride = kCols,
                              .out_stride = kCols},
                             {.first_row = first, .amax = amax, .key = 7, .site = 9});
    });
    EXPECT_EQ(BitsOf(out), BitsOf(expected)) << Describe(spec);
  }
}

}  // namespace
}  // namespace temper::numerics
