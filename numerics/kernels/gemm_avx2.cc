// Tiles of 6 x 16 in twelve registers. Compiled for AVX2 and FMA; called only where they exist.

#include <immintrin.h>

#include "numerics/kernels/gemm_body.h"

namespace temper::numerics::kernels {
namespace {

struct Avx2 {
  static constexpr int kWidth = 8;
  using F = __m256;
  static F Zero() { return _mm256_setzero_ps(); }
  static F Load(const float* p) { return _mm256_load_ps(p); }
  static F Broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
};

}  // namespace

void GemmAvx2(const GemmArguments& g) { GemmLoop<Avx2, 6, 1, 2, 3>(g); }

}  // namespace temper::numerics::kernels
