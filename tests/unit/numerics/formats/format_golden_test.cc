// Codes and scales against torchao (tests/golden/formats.txt).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "numerics/formats/fake_quantize.h"
#include "numerics/formats/number_codes.h"
#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics {
namespace {

// One tensor, and what the other program made of it.
struct Case {
  std::string name;
  int64_t rows = 0, cols = 0;
  std::vector<float> x;
  std::vector<uint32_t> mx_codes, mx_scales, nv_codes, nv_scales, fp8_codes;
  float nv_tensor_scale = 0, fp8_scale = 0;
};

void Append(const std::string& text, size_t width, std::vector<uint32_t>* numbers) {
  for (size_t i = 0; i + width <= text.size(); i += width) {
    numbers->push_back(static_cast<uint32_t>(std::stoul(text.substr(i, width), nullptr, 16)));
  }
}

float FloatOf(const std::string& text) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(text, nullptr, 16)));
}

std::vector<Case> Cases() {
  std::ifstream file("tests/golden/formats.txt");
  std::vector<Case> cases;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string kind, first, second;
    fields >> kind >> first >> second;
    if (kind == "case") {
      cases.push_back({.name = first, .rows = std::stol(second)});
      fields >> cases.back().cols;
    }
    if (kind == "nvt") cases.back().nv_tensor_scale = FloatOf(first);
    if (kind == "f8t") cases.back().fp8_scale = FloatOf(first);
    if (kind == "x") {
      std::vector<uint32_t> bits;
      Append(first, 8, &bits);
      for (const uint32_t b : bits) cases.back().x.push_back(std::bit_cast<float>(b));
    }
    if (kind == "f8") Append(first, 2, &cases.back().fp8_codes);
    if (kind == "mx" || kind == "nv") {
      Append(first, 1, kind == "mx" ? &cases.back().mx_codes : &cases.back().nv_codes);
      Append(second, 2, kind == "mx" ? &cases.back().mx_scales : &cases.back().nv_scales);
    }
  }
  return cases;
}

// Distance of x / scale from the nearest tie of E2M1, relative to the tie.
double DistanceFromTie(float x, float scale) {
  const double quotient = std::abs(double{x} / scale);
  double least = 1.0;
  for (const double tie : {0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0}) {
    least = std::min(least, std::abs(quotient - tie) / tie);
  }
  return least;
}

TEST(FormatGoldens, HoldEightTensors) { EXPECT_EQ(Cases().size(), 8u); }

TEST(FormatGoldens, Mxfp4CodesAndScalesAreThoseOfTorchao) {
  for (const Case& c : Cases()) {
    const Quantized q = Quantize(Quantizer({.format = NumberFormat::kMxfp4}), c.x, c.cols);
    for (size_t b = 0; b < c.mx_scales.size(); ++b) {
      // E8M0: the exponent, biased by 127.
      EXPECT_EQ(q.scales[b], std::ldexp(1.0f, static_cast<int>(c.mx_scales[b]) - 127)) << c.name;
    }
    for (size_t i = 0; i < c.x.size(); ++i) {
      ASSERT_EQ(EncodeE2M1(q.values[i] / q.scales[i / 32]), c.mx_codes[i])
          << c.name << " " << i << " " << c.x[i];
    }
  }
}

TEST(FormatGoldens, Nvfp4CodesAndScalesAreThoseOfTorchaoWhereTheBlockScaleIsNormal) {
  size_t compared = 0, small = 0, ties = 0;
  for (const Case& c : Cases()) {
    const Quantized q = Quantize(Quantizer({.format = NumberFormat::kNvfp4}), c.x, c.cols);
    for (size_t b = 0; b < c.nv_scales.size(); ++b) {
      float amax = 0.0f;
      for (size_t i = b * 16; i < b * 16 + 16; ++i) amax = std::max(amax, std::abs(c.x[i]));
      if ((amax / 6.0f) / c.nv_tensor_scale < 0x1p-6f) {
        ++small;
        EXPECT_EQ(c.nv_scales[b], 0x08u) << "torchao raises smaller scales to 2^-6";
        continue;
      }
      const float scale = DecodeE4M3(static_cast<uint8_t>(c.nv_scales[b])) * c.nv_tensor_scale;
      EXPECT_EQ(q.scales[b], scale) << c.name << " block " << b;
      for (size_t i = b * 16; i < b * 16 + 16; ++i) {
        ++compared;
        const uint32_t code = EncodeE2M1(q.values[i] / q.scales[b]);
        if (code == c.nv_codes[i]) continue;
        // torchao multiplies by the rounded (1 / S) / s_b: a tie may become one of its neighbours.
        EXPECT_LT(DistanceFromTie(c.x[i], scale), 0x1p-22) << c.name << " " << i << " " << c.x[i];
        EXPECT_EQ(std::abs(static_cast<int>(code) - static_cast<int>(c.nv_codes[i])), 1);
        EXPECT_EQ(c.name, "few_bits") << "the one tensor that is full of ties";
        ++ties;
      }
    }
  }
  EXPECT_GT(compared, 3000u);
  EXPECT_GT(small, 0u);
  EXPECT_LT(ties, 30u);
}

TEST(FormatGoldens, Fp8CodesAreThoseOfPyTorch) {
  for (const Case& c : Cases()) {
    const Quantized q = Quantize(Quantizer({.format = NumberFormat::kFp8}), c.x, c.cols);
    EXPECT_EQ(q.scales[0], c.fp8_scale) << c.name;
    for (size_t i = 0; i < c.x.size(); ++i) {
      ASSERT_EQ(EncodeE4M3(q.values[i] / c.fp8_scale), c.fp8_codes[i])
          << c.name << " " << i << " " << c.x[i];
    }
  }
}

}  // namespace
}  // namespace temper::numerics
