#pragma once

// Lanes (see lanes_scalar.h) as two AVX2 vectors.

#include <immintrin.h>

#include <cstdint>

namespace temper::model::kernels {
namespace {

struct Lanes {
  static constexpr int kGradRows = 6;
  static constexpr int kGradLanes = 1;

  __m256 lo, hi;

  static Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Lanes Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Lanes Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Lanes LoadPart(const float* p, int64_t n) {
    alignas(32) float t[16] = {};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return Load(t);
  }
  void Store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  void StorePart(float* p, int64_t n) const {
    alignas(32) float t[16];
    Store(t);
    for (int i = 0; i < n; ++i) p[i] = t[i];
  }
  static Lanes Fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static Lanes Max(Lanes a, Lanes b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  static Lanes Min(Lanes a, Lanes b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  static Lanes ZeroBelow(Lanes condition, float limit, Lanes x) {
    const __m256 l = _mm256_set1_ps(limit);
    return {_mm256_and_ps(x.lo, _mm256_cmp_ps(condition.lo, l, _CMP_NLT_UQ)),
            _mm256_and_ps(x.hi, _mm256_cmp_ps(condition.hi, l, _CMP_NLT_UQ))};
  }
  static __m256 ScaleHalf(__m256 x, __m256 n_bits) {
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(n_bits), 23)));
  }
  static Lanes ScaleByPower(Lanes x, Lanes n_bits) {
    return {ScaleHalf(x.lo, n_bits.lo), ScaleHalf(x.hi, n_bits.hi)};
  }
  float Sum() const {
    const __m256 t8 = _mm256_add_ps(lo, hi);
    const __m128 t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    const __m128 t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_add_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
  }
  float Largest() const {
    const __m256 t8 = _mm256_max_ps(lo, hi);
    const __m128 t4 = _mm_max_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps(t8, 1));
    const __m128 t2 = _mm_max_ps(t4, _mm_movehl_ps(t4, t4));
    return _mm_cvtss_f32(_mm_max_ss(t2, _mm_shuffle_ps(t2, t2, 1)));
  }
};

inline Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Lanes operator/(Lanes a, Lanes b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

}  // namespace
}  // namespace temper::model::kernels
