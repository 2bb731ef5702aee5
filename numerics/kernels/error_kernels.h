#pragma once

// The inner loops of numerics/operator_error.cc, one set per instruction set. As with the Gaussian
// kernels, nothing of the standard library but <cstdint> may be included.

#include <cstdint>

#include "numerics/error_type.h"
#include "numerics/kernels/gaussian_kernels.h"

namespace temper::numerics::kernels {

// Neighbouring elements of one row, and what the error makes of them.
struct ErrorArguments {
  ErrorType type = ErrorType::kAbsoluteGaussian;
  const float* x = nullptr;
  float* out = nullptr;  // not x
  int64_t count = 0;
  const float* normals = nullptr;  // of absolute_gaussian and spike
  const float* words = nullptr;    // of spike: 32-bit words in the bits of floats
  // s; 1 + s of the relative bias; the bound of dead zone and saturation; m max of spike.
  float size = 0.0f;
  bool relative = false;     // of systematic_bias
  uint32_t last_struck = 0;  // of spike: the largest word that is struck
};

// Takes `after` over into y and counts the difference. At most a block; sums as at RowSums.
struct ReplaceArguments {
  float* y = nullptr;
  const float* after = nullptr;
  int64_t count = 0;
  RowSums* sums = nullptr;  // overwritten
};

// Every type but relative_gaussian, which has kernels of its own.
using ErrorFn = void (*)(const ErrorArguments& e);
using ReplaceFn = void (*)(const ReplaceArguments& r);
// The largest finite |x|; 0 without one.
using LargestFn = float (*)(const float* x, int64_t count);

void ErrorScalar(const ErrorArguments& e);
void ErrorAvx2(const ErrorArguments& e);
void ErrorAvx512(const ErrorArguments& e);
void ReplaceScalar(const ReplaceArguments& r);
void ReplaceAvx2(const ReplaceArguments& r);
void ReplaceAvx512(const ReplaceArguments& r);
float LargestScalar(const float* x, int64_t count);
float LargestAvx2(const float* x, int64_t count);
float LargestAvx512(const float* x, int64_t count);

}  // namespace temper::numerics::kernels
