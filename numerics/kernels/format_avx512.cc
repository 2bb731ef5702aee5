// Vectors of 16 floats. Compiled for AVX-512; called only where it exists.

#include <immintrin.h>

#include "numerics/kernels/format_body.h"

namespace temper::numerics::kernels {
namespace {

struct Wide {
  typedef uint64_t U __attribute__((vector_size(64)));
  static U Multiply(U a, U b) { return (U)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
  static U InterleaveEven(U a, U b) { return (U)_mm512_unpacklo_epi64((__m512i)a, (__m512i)b); }
  static U InterleaveOdd(U a, U b) { return (U)_mm512_unpackhi_epi64((__m512i)a, (__m512i)b); }
  using I = Vector<16>::I;
  static I InterleaveLow32(I a, I b) { return (I)_mm512_unpacklo_epi32((__m512i)a, (__m512i)b); }
  static I InterleaveHigh32(I a, I b) { return (I)_mm512_unpackhi_epi32((__m512i)a, (__m512i)b); }
  static void Stream(Vector<16>::F v, float* to) { _mm512_stream_ps(to, v); }
  static void Fence() { _mm_sfence(); }
};

}  // namespace

FormatKernels FormatKernelsAvx512() { return FormatKernelsOf<16, Wide>(); }

}  // namespace temper::numerics::kernels
