#pragma once

// The inner loops of numerics/gaussian.cc, one set per instruction set. The three .cc files beside
// this header instantiate gaussian_kernel_body.h; they include nothing of the standard library but
// <cstdint>, because an inline function compiled for AVX-512 must not replace one that runs on any
// machine when the program is linked.

#include <cstdint>

namespace temper::numerics::kernels {

// Which numbers: counter words are (first_counter + i, position, site, lane).
struct GaussianCounter {
  uint64_t key = 0;
  uint32_t first_counter = 0;
  uint32_t position = 0;
  uint32_t site = 0;
  uint32_t lane = 0;
};

// Sums of one block of elements. Lane l holds the elements i of the block with i mod 16 == l, added
// in ascending order, so every instruction set adds in the same order.
struct BlockSums {
  static constexpr int kLanes = 16;
  alignas(64) double error[kLanes];
  alignas(64) double value[kLanes];
  int64_t changed = 0;
  int64_t non_finite = 0;
};

// out[i] = offset + scale * n_i as one fused multiply-add, i < count. (scale 1, offset 0: n itself;
// offset 1: the factor of relative error.)
using GaussianFn = void (*)(float* out, int64_t count, const GaussianCounter& counter, float scale,
                            float offset);
// y[i] *= factors[i]; sums are overwritten.
using ApplyFn = void (*)(float* y, const float* factors, int64_t count, BlockSums* sums);

void GaussianScalar(float* out, int64_t count, const GaussianCounter& counter, float scale,
                    float offset);
void GaussianAvx2(float* out, int64_t count, const GaussianCounter& counter, float scale,
                  float offset);
void GaussianAvx512(float* out, int64_t count, const GaussianCounter& counter, float scale,
                    float offset);
void ApplyScalar(float* y, const float* factors, int64_t count, BlockSums* sums);
void ApplyAvx2(float* y, const float* factors, int64_t count, BlockSums* sums);
void ApplyAvx512(float* y, const float* factors, int64_t count, BlockSums* sums);

}  // namespace temper::numerics::kernels
