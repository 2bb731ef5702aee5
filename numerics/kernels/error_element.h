#pragma once

// x' of one element under each error, for all instruction sets and for CUDA. size: as
// ErrorArguments::size; n: the element's normal.

#include <cstdint>

#include "numerics/kernels/host_device.h"

namespace temper::numerics::kernels {
namespace {

constexpr float kInfinity = __builtin_inff();
// From here on a float has no fraction.
constexpr float kNoFraction = 0x1p23f;

TEMPER_HOST_DEVICE inline float RelativeGaussian(float x, float size, float n) {
  return Mul(x, Fma(n, size, 1.0f));
}

TEMPER_HOST_DEVICE inline float AbsoluteGaussian(float x, float size, float n) {
  return Fma(size, n, x);
}

TEMPER_HOST_DEVICE inline float RelativeBias(float x, float size) { return Mul(x, size); }

TEMPER_HOST_DEVICE inline float Bias(float x, float size) {
  const float moved = Add(x, CopySign(size, x));
  return x == 0.0f ? x : moved;
}

TEMPER_HOST_DEVICE inline float Truncation(float x, float size) {
  const float steps = Div(x, size);
  const float cut = Mul(size, Trunc(steps));
  return Magnitude(steps) < kNoFraction ? cut : x;
}

TEMPER_HOST_DEVICE inline float Deadzone(float x, float size) {
  return Magnitude(x) < size ? 0.0f : x;
}

TEMPER_HOST_DEVICE inline float Saturation(float x, float size) {
  const float magnitude = Magnitude(x);
  const bool beyond = (magnitude > size) & (magnitude < kInfinity);
  return beyond ? CopySign(size, x) : x;
}

// word: the element's; last_struck: the largest that is struck.
TEMPER_HOST_DEVICE inline float Spike(float x, float size, float n, uint32_t word,
                                      uint32_t last_struck) {
  const float struck = Fma(size, n, x);
  return word <= last_struck ? struck : x;
}

}  // namespace
}  // namespace temper::numerics::kernels
