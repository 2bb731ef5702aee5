#include "tests/unit/numerics/formats/format_test_support.h"

#include <cmath>
#include <limits>

#include "numerics/gaussian.h"
#include "services/base/random_key.h"
#include "services/base/text.h"

namespace temper::numerics {
namespace {

uint64_t Key(uint64_t seed) { return base::RandomKey(seed, base::Purpose::kTest, 77); }

uint32_t Word(uint64_t seed, int64_t i) {
  const auto element = static_cast<uint32_t>(i);
  return base::Philox({element / 4, 0, 0, 0}, Key(seed))[element % 4];
}

}  // namespace

std::vector<float> Gaussians(int64_t count, float sd, uint64_t seed) {
  std::vector<float> out(static_cast<size_t>(count));
  FillGaussian(out.data(), count, Key(seed), /*site=*/1);
  for (float& value : out) value *= sd;
  return out;
}

std::vector<float> StudentT5(int64_t count, float scale, uint64_t seed) {
  std::vector<float> draws(static_cast<size_t>(count * 6));
  FillGaussian(draws.data(), count * 6, Key(seed), /*site=*/2);
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    const float* n = draws.data() + i * 6;
    double squares = 0.0;
    for (int k = 1; k <= 5; ++k) squares += static_cast<double>(n[k]) * n[k];
    out.push_back(static_cast<float>(scale * n[0] / std::sqrt(squares / 5.0)));
  }
  return out;
}

std::vector<float> BitPatterns(int64_t count, uint64_t seed) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(std::bit_cast<float>(Word(seed, i)));
  return out;
}

std::vector<float> Structured(int64_t count, int64_t block, uint64_t seed) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t word = Word(seed, i);
    const uint32_t top = Word(seed + 1, i / block) % 255;  // the block's exponent, 0 .. 254
    const uint32_t below = (word >> 8) % 12;
    const uint32_t exponent = top > below ? top - below : 0;
    // Few significant bits make grid points and halves, many the values between.
    const uint32_t mask = (word & 3) == 0 ? 0x7fffffu : (word & 3) == 1 ? 0x600000u : 0x780000u;
    const uint32_t bits = (word & 0x80000000u) | (exponent << 23) | (Word(seed + 2, i) & mask);
    float value = std::bit_cast<float>(bits);
    if (word % 61 == 0) value = 0.0f;
    if (word % 4099 == 0) value = std::numeric_limits<float>::infinity();
    out.push_back(value);
  }
  return out;
}

FakeQuantizer Quantizer(const FormatSpec& spec, Operand operand, SimdPath path) {
  return FakeQuantizer::Create(spec, operand, path).value();
}

Quantized Quantize(const FakeQuantizer& quantizer, const std::vector<float>& x, int64_t cols,
                   uint64_t key, uint32_t site) {
  const auto rows = static_cast<int64_t>(x.size()) / cols;
  Quantized q;
  q.values.resize(x.size());
  q.scales.resize(static_cast<size_t>(rows * quantizer.ScalesPerRow(cols)));
  const int64_t shape[2] = {rows, cols};
  const absl::Status status =
      quantizer.QuantizeWeight(shape, x.data(), q.values.data(), q.scales.data(), key, site);
  if (!status.ok()) q.values.clear();
  return q;
}

std::vector<FormatSpec> AllSpecs(Operand operand) {
  std::vector<FormatSpec> specs;
  for (const NumberFormat format :
       {NumberFormat::kMxfp4, NumberFormat::kNvfp4, NumberFormat::kFp8}) {
    for (const ScaleSpan span : {ScaleSpan::kTensor, ScaleSpan::kRow, ScaleSpan::kBlock}) {
      for (const bool block_2d : {false, true}) {
        for (const bool stochastic : {false, true}) {
          const FormatSpec spec = {.format = format,
                                   .scale_span = span,
                                   .block_2d = block_2d,
                                   .stochastic_rounding = stochastic};
          if (CheckFormat(spec, operand).ok()) specs.push_back(spec);
        }
      }
    }
  }
  return specs;
}

std::string Describe(const FormatSpec& spec) {
  return base::Cat(NumberFormatName(spec.format), " by ",
                   ScaleSpanName(ResolvedSpan(spec, Operand::kWeight)), spec.block_2d ? ", 2d" : "",
                   spec.stochastic_rounding ? ", stochastic" : "");
}

}  // namespace temper::numerics
