// Vectors of 8 floats. Compiled for AVX2; called only where it exists.

#include <immintrin.h>

#include "numerics/kernels/format_body.h"

namespace temper::numerics::kernels {
namespace {

struct Wide {
  typedef uint64_t U __attribute__((vector_size(32)));
  static U Multiply(U a, U b) { return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
  static U InterleaveEven(U a, U b) { return (U)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b); }
  static U InterleaveOdd(U a, U b) { return (U)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b); }
  using I = Vector<8>::I;
  static I InterleaveLow32(I a, I b) { return (I)_mm256_unpacklo_epi32((__m256i)a, (__m256i)b); }
  static I InterleaveHigh32(I a, I b) { return (I)_mm256_unpackhi_epi32((__m256i)a, (__m256i)b); }
  static void Stream(Vector<8>::F v, float* to) { _mm256_stream_ps(to, v); }
  static void Fence() { _mm_sfence(); }
};

}  // namespace

FormatKernels FormatKernelsAvx2() { return FormatKernelsOf<8, Wide>(); }

}  // namespace temper::numerics::kernels
