#pragma once

// The errors other than relative Gaussian, written plainly for the compiler to vectorise; included
// by one .cc file per instruction set. Every operation rounds correctly and none is contracted
// (-ffp-contract=off; a fused multiply-add is written as one), so all sets give the same bits.

#include <cstdint>

#include "numerics/kernels/error_element.h"
#include "numerics/kernels/error_kernels.h"

namespace temper::numerics::kernels {
namespace {

template <typename F>
inline void ForEach(const ErrorArguments& e, F f) {
  const float* x = e.x;
  float* out = e.out;
  for (int64_t i = 0; i < e.count; ++i) out[i] = f(x[i], i);
}

inline void Error(const ErrorArguments& e) {
  const float size = e.size;
  const float* n = e.normals;
  switch (e.type) {
    case ErrorType::kAbsoluteGaussian:
      return ForEach(e, [=](float x, int64_t i) { return AbsoluteGaussian(x, size, n[i]); });
    case ErrorType::kSystematicBias:
      if (e.relative) return ForEach(e, [=](float x, int64_t) { return RelativeBias(x, size); });
      return ForEach(e, [=](float x, int64_t) { return Bias(x, size); });
    case ErrorType::kTruncation:
      return ForEach(e, [=](float x, int64_t) { return Truncation(x, size); });
    case ErrorType::kDeadzone:
      return ForEach(e, [=](float x, int64_t) { return Deadzone(x, size); });
    case ErrorType::kSaturation:
      return ForEach(e, [=](float x, int64_t) { return Saturation(x, size); });
    case ErrorType::kSpike: {
      const float* words = e.words;
      const uint32_t last = e.last_struck;
      return ForEach(e, [=](float x, int64_t i) {
        return Spike(x, size, n[i], __builtin_bit_cast(uint32_t, words[i]), last);
      });
    }
    case ErrorType::kRelativeGaussian:
      break;
  }
}

inline void Replace(const ReplaceArguments& r) {
  constexpr int kLanes = 16;
  alignas(64) double error[kLanes] = {};
  alignas(64) double value[kLanes] = {};
  int64_t changed = 0, non_finite = 0;
  for (int64_t i = 0; i < r.count; i += kLanes) {
    const int64_t here = r.count - i < kLanes ? r.count - i : kLanes;
    for (int64_t l = 0; l < here; ++l) {
      const float before = r.y[i + l], after = r.after[i + l];
      r.y[i + l] = after;
      changed += (after < before) | (after > before);
      const bool finite = __builtin_fabsf(after) < kInfinity;
      non_finite += !finite;
      const double e = finite ? static_cast<double>(after - before) : 0.0;
      const double v = finite ? static_cast<double>(before) : 0.0;
      error[l] += e * e;
      value[l] += v * v;
    }
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) {
      error[l] += error[l + width];
      value[l] += value[l + width];
    }
  }
  *r.sums = {.error = error[0], .value = value[0], .changed = changed, .non_finite = non_finite};
}

// Magnitudes compare as their bits do.
inline float Largest(const float* x, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t magnitude = __builtin_bit_cast(int32_t, x[i]) & 0x7fffffff;
    const int32_t finite = magnitude < 0x7f800000 ? magnitude : 0;
    largest = finite > largest ? finite : largest;
  }
  return __builtin_bit_cast(float, largest);
}

}  // namespace
}  // namespace temper::numerics::kernels
