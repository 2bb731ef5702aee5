// Tiles of 12 x 32 in twenty-four registers. Compiled for AVX-512 F; called only where it exists.

#include <immintrin.h>

#include "numerics/kernels/gemm_body.h"

namespace temper::numerics::kernels {
namespace {

struct Avx512 {
  static constexpr int kWidth = 16;
  using F = __m512;
  static F Zero() { return _mm512_setzero_ps(); }
  static F Load(const float* p) { return _mm512_load_ps(p); }
  static F Broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
};

}  // namespace

void GemmAvx512(const GemmArguments& g) { GemmLoop<Avx512, 12, 2, 4, 6>(g); }

}  // namespace temper::numerics::kernels
