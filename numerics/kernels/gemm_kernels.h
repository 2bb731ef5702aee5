#pragma once

// The inner loops of numerics/gemm.cc, one per instruction set. See gaussian_kernels.h for why the
// .cc files include nothing of the standard library.

#include <cstdint>

namespace temper::numerics::kernels {

constexpr int64_t kGemmPanel = 16;

struct GemmArguments {
  const float* x = nullptr;  // [rows, K], row stride ldx
  int64_t rows = 0;
  int64_t ldx = 0;
  const float* panels = nullptr;  // ceil(N / 16) panels of [K][16]
  int64_t K = 0;
  int64_t N = 0;
  float* y = nullptr;  // [rows, N], row stride ldy
  int64_t ldy = 0;
};

void GemmScalar(const GemmArguments& g);
void GemmAvx2(const GemmArguments& g);
void GemmAvx512(const GemmArguments& g);

}  // namespace temper::numerics::kernels
