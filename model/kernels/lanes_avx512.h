#pragma once

// Lanes (see lanes_scalar.h) as one AVX-512 vector.

#include <immintrin.h>

#include <cstdint>

namespace temper::model::kernels {
namespace {

struct Lanes {
  static constexpr int kGradRows = 8;
  static constexpr int kGradLanes = 2;

  __m512 v;

  static __mmask16 First(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static Lanes Zero() { return {_mm512_setzero_ps()}; }
  static Lanes Broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes LoadPart(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(First(n), p)}; }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  void StorePart(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, First(n), v); }
  static Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Lanes Max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Lanes Min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Lanes ZeroBelow(Lanes condition, float limit, Lanes x) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(condition.v, _mm512_set1_ps(limit), _CMP_NLT_UQ),
                                x.v)};
  }
  static Lanes ScaleByPower(Lanes x, Lanes n_bits) {
    return {_mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(x.v), _mm512_slli_epi32(_mm512_castps_si512(n_bits.v), 23)))};
  }
  float Sum() const {
    const __m256 t8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
  }
  float Largest() const {
    const __m256 t8 = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 t4 = _mm_max_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    const __m128 t2 = _mm_max_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_max_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
  }
};

inline Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }

}  // namespace
}  // namespace temper::model::kernels
