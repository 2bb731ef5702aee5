#pragma once

// Fake quantization one value and one scale at a time, on host and device: the formulas of
// numerics/formats/fake_quantize.h. Grid points are found by adding and taking away a power of two,
// as in numerics/kernels/format_body.h, whose vectors nvcc cannot compile.

#include "numerics/cuda/kernel_arguments.h"
#include "numerics/kernels/host_device.h"

namespace temper::numerics::cuda {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kNanBits = 0x7fc00000u;

// A grid of magnitudes: fraction bits, the binade (as bits) below which steps stay the same, and
// the largest element (as bits).
struct GridE2M1 {
  static constexpr uint32_t kFractionBits = 1;
  static constexpr uint32_t kLeast = 127u << 23;  // 1: below it the steps stay 0.5
  static constexpr uint32_t kMax = 0x40c00000u;   // 6
};
struct GridE4M3 {
  static constexpr uint32_t kFractionBits = 3;
  static constexpr uint32_t kLeast = 121u << 23;  // 2^-6
  static constexpr uint32_t kMax = 0x43e00000u;   // 448
};

// What an element of a block is divided and multiplied by; of MXFP4 also the exact reciprocal.
struct ElementScale {
  float scale;
  float inverse;
};

TEMPER_HOST_DEVICE inline uint32_t Larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

template <class Grid>
TEMPER_HOST_DEVICE inline uint32_t Binade(uint32_t magnitude) {
  return Larger(magnitude & kInfinityBits, Grid::kLeast);
}

// The nearest grid point, ties to even. magnitude: bits, at most Grid::kMax.
template <class Grid>
TEMPER_HOST_DEVICE inline float NearestOnGrid(uint32_t magnitude) {
  const float rounder = kernels::FromBits(Binade<Grid>(magnitude) +
                                          ((23u - Grid::kFractionBits) << 23) + 0x00400000u);
  return kernels::Sub(kernels::Add(kernels::FromBits(magnitude), rounder), rounder);
}

// Up with the probability that is the distance from the grid point below, in steps.
template <class Grid>
TEMPER_HOST_DEVICE inline float StochasticOnGrid(uint32_t magnitude, uint32_t word) {
  const uint32_t step = Binade<Grid>(magnitude) - (Grid::kFractionBits << 23);
  const float steps =
      kernels::Mul(kernels::FromBits(magnitude), kernels::FromBits((254u << 23) - step));
  const float below = kernels::Trunc(steps);
  const float high = static_cast<float>(static_cast<int32_t>(word >> 9));
  const float uniform = kernels::Mul(kernels::Add(high, 0.5f), 0x1p-23f);
  const bool up = uniform < kernels::Sub(steps, below);
  return kernels::Mul(kernels::Add(below, up ? 1.0f : 0.0f), kernels::FromBits(step));
}

// S of NVFP4 from the largest finite magnitude of the tensor or row.
TEMPER_HOST_DEVICE inline float TensorScale(uint32_t finite_bits) {
  const float scale = kernels::Div(kernels::FromBits(finite_bits), 2688.0f);
  return scale == 0.0f ? 1.0f : scale;
}

// amax: largest magnitude of what shares the scale, as bits; NaN where that is not finite.
// whole_bits: of NVFP4, the largest finite magnitude of the tensor or row.
template <QuantizeFormat format>
TEMPER_HOST_DEVICE inline ElementScale ScaleOf(uint32_t amax, uint32_t whole_bits) {
  if (amax >= kInfinityBits) return {kernels::FromBits(kNanBits), 1.0f};
  if constexpr (format == QuantizeFormat::kMxfp4) {
    // 4 = 2^2 is the largest power of two in E2M1; exponent field 0 stands for 2^-127.
    const uint32_t field = amax >> 23, exponent = field > 2 ? field - 2 : 0;
    return {kernels::FromBits(exponent == 0 ? 0x00400000u : exponent << 23),
            kernels::FromBits((254u - exponent) << 23)};
  }
  if constexpr (format == QuantizeFormat::kNvfp4) {
    const float tensor_scale = TensorScale(whole_bits);
    const float ratio = kernels::Div(kernels::Div(kernels::FromBits(amax), 6.0f), tensor_scale);
    const uint32_t least = Larger(kernels::Bits(ratio), 118u << 23);  // 2^-9
    const uint32_t clamped = least < GridE4M3::kMax ? least : GridE4M3::kMax;
    return {kernels::Mul(NearestOnGrid<GridE4M3>(clamped), tensor_scale), 1.0f};
  }
  const uint32_t scale = Larger(kernels::Bits(kernels::Div(kernels::FromBits(amax), 448.0f)),
                                1u << 23);  // 2^-126
  return {amax == 0 ? 1.0f : kernels::FromBits(scale), 1.0f};
}

template <class Grid, bool stochastic>
TEMPER_HOST_DEVICE inline float OnGrid(float scaled, uint32_t word) {
  // Infinity and NaN (0 / 0, under a scale that underflowed) become the largest element here.
  const uint32_t bits = kernels::Bits(scaled) & 0x7fffffffu;
  const uint32_t magnitude = bits < Grid::kMax ? bits : Grid::kMax;
  return stochastic ? StochasticOnGrid<Grid>(magnitude, word) : NearestOnGrid<Grid>(magnitude);
}

// Q(x) under its scale; zeros keep their sign.
template <QuantizeFormat format, bool stochastic>
TEMPER_HOST_DEVICE inline float Quantized(float x, const ElementScale& s, uint32_t word) {
  if (s.scale != s.scale) return kernels::FromBits(kNanBits);
  float grid;
  if constexpr (format == QuantizeFormat::kMxfp4) {
    grid = OnGrid<GridE2M1, stochastic>(kernels::Mul(x, s.inverse), word);
  } else if constexpr (format == QuantizeFormat::kNvfp4) {
    grid = OnGrid<GridE2M1, stochastic>(kernels::Div(x, s.scale), word);
  } else {
    grid = OnGrid<GridE4M3, stochastic>(kernels::Div(x, s.scale), word);
  }
  return kernels::Mul(kernels::CopySign(grid, x), s.scale);
}

}  // namespace
}  // namespace temper::numerics::cuda
