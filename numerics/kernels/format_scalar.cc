// The reference path: the formulas of docs/numerics.md, "Number formats", one value at a time
// through the element codes. Any machine; for tests, not for use.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "numerics/formats/number_codes.h"
#include "numerics/kernels/format_kernels.h"
#include "services/base/random_key.h"

namespace temper::numerics::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool IsFinite(int32_t magnitude_bits) { return magnitude_bits < kInfinityBits; }

void BlockAmax(const BlockAmaxArguments& a) {
  for (int64_t begin = 0, b = 0; begin < a.count; begin += a.block, ++b) {
    int32_t largest = 0;
    for (int64_t i = begin; i < std::min(begin + a.block, a.count); ++i) {
      largest = std::max(largest, std::bit_cast<int32_t>(a.x[i]) & 0x7fffffff);
    }
    a.amax[b] = largest;
  }
}

void Mxfp4Scales(const ScaleArguments& a) {
  for (int64_t b = 0; b < a.blocks; ++b) {
    // floor(log2) - 2 of the exponent bits; zero and denormals count as -127.
    const int exponent = std::clamp((a.amax[b] >> 23) - 127 - 2, -127, 127);
    a.scale[b] = IsFinite(a.amax[b]) ? std::ldexp(1.0f, exponent) : kNan;
    a.inverse[b] = std::ldexp(1.0f, -exponent);
  }
}

void Nvfp4Scales(const ScaleArguments& a) {
  for (int64_t b = 0; b < a.blocks; ++b) {
    const float amax = std::bit_cast<float>(a.amax[b]);
    if (!IsFinite(a.amax[b])) {
      a.scale[b] = kNan;
      continue;
    }
    const float ratio = (amax / kE2M1Max) / a.tensor_scale;
    const float clamped = std::min(std::max(ratio, 0x1p-9f), kE4M3Max);
    a.scale[b] = a.tensor_scale * DecodeE4M3(EncodeE4M3(clamped));
  }
}

void Fp8Scales(const ScaleArguments& a) {
  for (int64_t b = 0; b < a.blocks; ++b) {
    const float amax = std::bit_cast<float>(a.amax[b]);
    a.scale[b] = !IsFinite(a.amax[b]) ? kNan
                 : amax == 0.0f       ? 1.0f
                                : std::max(amax / kE4M3Max, std::numeric_limits<float>::min());
  }
}

// The steps of the grid around a magnitude.
float Step(float magnitude, bool e4m3) {
  if (!e4m3) return magnitude < 2.0f ? 0.5f : magnitude < 4.0f ? 1.0f : 2.0f;
  if (magnitude < 0x1p-6f) return 0x1p-9f;
  return std::ldexp(1.0f, std::ilogb(magnitude) - 3);
}

float RoundStochastically(float scaled, uint32_t word, bool e4m3) {
  const float max = e4m3 ? kE4M3Max : kE2M1Max;
  const float magnitude = std::abs(scaled) < max ? std::abs(scaled) : max;
  const float step = Step(magnitude, e4m3);
  const float steps = magnitude / step;
  const float below = std::floor(steps);
  const float uniform = (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;
  const float rounded = (uniform < steps - below ? below + 1.0f : below) * step;
  return rounded;
}

float RoundToNearest(float scaled, bool e4m3) {
  return std::abs(e4m3 ? DecodeE4M3(EncodeE4M3(scaled)) : DecodeE2M1(EncodeE2M1(scaled)));
}

void Apply(const ApplyFormatArguments& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const float scale = a.scale[i / a.block];
    if (std::isnan(scale)) {
      a.out[i] = kNan;
      continue;
    }
    const float x = a.x[i];
    if (x == 0.0f || scale == 0.0f) {  // nothing to divide: a zero with the sign of x
      a.out[i] = std::copysign(0.0f, x);
      continue;
    }
    const float scaled = x / scale;
    const float grid = a.words != nullptr ? RoundStochastically(scaled, a.words[i], a.e4m3)
                                          : RoundToNearest(scaled, a.e4m3);
    a.out[i] = std::copysign(grid * scale, x);
  }
}

void Words(const WordsArguments& a) {
  for (int64_t i = 0; i < a.count; i += 4) {
    const std::array<uint32_t, 4> words = base::Philox(
        {a.first_counter + static_cast<uint32_t>(i / 4), a.row.position, a.site, a.row.lane},
        a.row.key);
    std::copy(words.begin(), words.end(), a.out + i);
  }
}

}  // namespace

FormatKernels FormatKernelsScalar() {
  return {.block_amax = BlockAmax,
          .mxfp4_scales = Mxfp4Scales,
          .nvfp4_scales = Nvfp4Scales,
          .fp8_scales = Fp8Scales,
          .apply = Apply,
          .words = Words};
}

}  // namespace temper::numerics::kernels
