// Eight counters, 32 numbers at a time. Compiled for AVX2 and FMA; called only where they exist.

#include <immintrin.h>

#include "numerics/kernels/gaussian_body.h"

namespace temper::numerics::kernels {
namespace {

struct Avx2 {
  static constexpr int kWidth = 8;
  static constexpr bool kPairs = true;
  using F = __m256;
  using I = __m256i;
  struct Words {
    I w[4];
  };

  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Sqrt(F a) { return _mm256_sqrt_ps(a); }
  static F Float(float v) { return _mm256_set1_ps(v); }
  static I Int(int v) { return _mm256_set1_epi32(v); }
  static F ToFloat(I v) { return _mm256_cvtepi32_ps(v); }
  static I Bits(F v) { return _mm256_castps_si256(v); }
  static F FromBits(I v) { return _mm256_castsi256_ps(v); }
  static I And(I a, I b) { return _mm256_and_si256(a, b); }
  static I Xor(I a, I b) { return _mm256_xor_si256(a, b); }
  static I AddInt(I a, I b) { return _mm256_add_epi32(a, b); }
  template <int n>
  static I ShiftRight(I a) {
    return _mm256_srli_epi32(a, n);
  }
  template <int n>
  static I ShiftRightSigned(I a) {
    return _mm256_srai_epi32(a, n);
  }
  template <int n>
  static I ShiftLeft(I a) {
    return _mm256_slli_epi32(a, n);
  }
  static void SwapWhereOdd(I q, F* a, F* b) {
    const F odd = FromBits(ShiftLeft<31>(q));
    const F kept = *a;
    *a = _mm256_blendv_ps(kept, *b, odd);
    *b = _mm256_blendv_ps(*b, kept, odd);
  }
  // Lanes hold counters 0 2 4 6 1 3 5 7, so that a transpose inside 128-bit halves is enough.
  static void Store(const F* n, float* out) {
    const F t0 = _mm256_unpacklo_ps(n[0], n[1]), t1 = _mm256_unpackhi_ps(n[0], n[1]);
    const F t2 = _mm256_unpacklo_ps(n[2], n[3]), t3 = _mm256_unpackhi_ps(n[2], n[3]);
    _mm256_storeu_ps(out, _mm256_shuffle_ps(t0, t2, 0x44));
    _mm256_storeu_ps(out + 8, _mm256_shuffle_ps(t0, t2, 0xee));
    _mm256_storeu_ps(out + 16, _mm256_shuffle_ps(t1, t3, 0x44));
    _mm256_storeu_ps(out + 24, _mm256_shuffle_ps(t1, t3, 0xee));
  }

  // Of each counter, a first and b after it.
  static void StorePairs(const F* a, const F* b, float* out) {
    alignas(32) float first[32], second[32];
    Store(a, first);
    Store(b, second);
    for (int i = 0; i < 4; ++i) {
      const F x = _mm256_load_ps(first + 8 * i), y = _mm256_load_ps(second + 8 * i);
      _mm256_storeu_ps(out + 16 * i, _mm256_permute2f128_ps(x, y, 0x20));
      _mm256_storeu_ps(out + 16 * i + 8, _mm256_permute2f128_ps(x, y, 0x31));
    }
  }

  // Each 64-bit lane carries one counter in its low half; what is in the high half never matters,
  // because the 32 x 32 -> 64 bit product does not read it.
  class Philox {
   public:
    Philox(uint64_t key, uint32_t site) : site_(static_cast<int>(site)) {
      uint32_t k0 = static_cast<uint32_t>(key);
      uint32_t k1 = static_cast<uint32_t>(key >> 32);
      for (int round = 0; round < 10; ++round) {
        key0_[round] = static_cast<int>(k0);
        key1_[round] = static_cast<int>(k1);
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
      }
    }
    // Counters first_counter + 0 .. 7 of one row.
    void Run(uint32_t first_counter, const RowKey& row, Words* words) const {
      const I first = Int(static_cast<int>(first_counter));
      const I position = Int(static_cast<int>(row.position));
      const I lane = Int(static_cast<int>(row.lane));
      Rounds(AddInt(first, _mm256_setr_epi32(0, 0, 4, 0, 1, 0, 5, 0)),
             AddInt(first, _mm256_setr_epi32(2, 0, 6, 0, 3, 0, 7, 0)), position, lane, words);
    }
    // Counters first_counter + 0 .. 3 of two rows: the first row's numbers come out first.
    void RunPair(uint32_t first_counter, const RowKey& one, const RowKey& two, Words* words) const {
      const I first = Int(static_cast<int>(first_counter));
      Rounds(AddInt(first, _mm256_setr_epi32(0, 0, 0, 0, 1, 0, 1, 0)),
             AddInt(first, _mm256_setr_epi32(2, 0, 2, 0, 3, 0, 3, 0)),
             Alternate(one.position, two.position), Alternate(one.lane, two.lane), words);
    }

   private:
    static I Alternate(uint32_t one, uint32_t two) {
      const auto first = static_cast<long long>(one), second = static_cast<long long>(two);
      return _mm256_set_epi64x(second, first, second, first);
    }
    void Rounds(I counters_a, I counters_b, I position, I lane, Words* words) const {
      I a[4] = {counters_a, position, Int(site_), lane};
      I b[4] = {counters_b, position, Int(site_), lane};
#pragma GCC unroll 10
      for (int round = 0; round < 10; ++round) {
        Round(Int(key0_[round]), Int(key1_[round]), a);
        Round(Int(key0_[round]), Int(key1_[round]), b);
      }
      for (int i = 0; i < 4; ++i) {
        words->w[i] = _mm256_blend_epi32(a[i], _mm256_slli_epi64(b[i], 32), 0xaa);
      }
    }

    static void Round(I key0, I key1, I* c) {
      const I p0 = _mm256_mul_epu32(c[0], Int(static_cast<int>(kPhiloxM0)));
      const I p1 = _mm256_mul_epu32(c[2], Int(static_cast<int>(kPhiloxM1)));
      c[0] = Xor(_mm256_srli_epi64(p1, 32), Xor(c[1], key0));
      c[1] = p1;
      c[2] = Xor(_mm256_srli_epi64(p0, 32), Xor(c[3], key1));
      c[3] = p0;
    }

    int site_;
    int key0_[10];
    int key1_[10];
  };
};

// sum + v^2; the product of two floats is exact in double, so fusing does not change the result.
inline __m256d AddSquare(__m128 v, __m256d sum) {
  const __m256d d = _mm256_cvtps_pd(v);
  return _mm256_fmadd_pd(d, d, sum);
}

}  // namespace

void GaussianAvx2(const GaussianArguments& g) { GaussianLoop<Avx2>(g); }

namespace {

void ApplyRow(float* y, const float* factors, int64_t count, RowSums* sums) {
  __m256d error[4], value[4];
  for (int j = 0; j < 4; ++j) error[j] = value[j] = _mm256_setzero_pd();
  const __m256 infinity = _mm256_set1_ps(__builtin_inff());
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256i changed = _mm256_setzero_si256();
  int64_t non_finite = 0, i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int h = 0; h < 2; ++h) {
      const __m256 before = _mm256_loadu_ps(y + i + 8 * h);
      const __m256 after = _mm256_mul_ps(before, _mm256_loadu_ps(factors + i + 8 * h));
      _mm256_storeu_ps(y + i + 8 * h, after);
      const __m256 finite = _mm256_cmp_ps(_mm256_and_ps(after, magnitude), infinity, _CMP_LT_OQ);
      // True is -1.
      changed =
          _mm256_sub_epi32(changed, _mm256_castps_si256(_mm256_cmp_ps(after, before, _CMP_NEQ_OQ)));
      __m256 e = _mm256_sub_ps(after, before);
      __m256 v = before;
      const auto kept = static_cast<unsigned>(_mm256_movemask_ps(finite));
      if (__builtin_expect(kept != 0xff, 0)) {
        e = _mm256_and_ps(e, finite);
        v = _mm256_and_ps(v, finite);
        non_finite += 8 - _mm_popcnt_u32(kept);
      }
      error[2 * h] = AddSquare(_mm256_castps256_ps128(e), error[2 * h]);
      error[2 * h + 1] = AddSquare(_mm256_extractf128_ps(e, 1), error[2 * h + 1]);
      value[2 * h] = AddSquare(_mm256_castps256_ps128(v), value[2 * h]);
      value[2 * h + 1] = AddSquare(_mm256_extractf128_ps(v, 1), value[2 * h + 1]);
    }
  }
  alignas(32) int32_t changed_lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(changed_lanes), changed);
  sums->changed = 0;
  for (const int32_t lane : changed_lanes) sums->changed += lane;
  sums->non_finite = non_finite;
  LaneSums lanes;
  for (int j = 0; j < 4; ++j) {
    _mm256_store_pd(lanes.error + 4 * j, error[j]);
    _mm256_store_pd(lanes.value + 4 * j, value[j]);
  }
  ApplyTail(y, factors, i, count, &lanes, sums);
  AddLanes(&lanes, sums);
}

void MultiplyRow(float* y, const float* factors, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(factors + i)));
  }
  MultiplyTail(y, factors, i, count);
}

}  // namespace

void ApplyAvx2(const ApplyArguments& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    if (a.sums == nullptr) {
      MultiplyRow(a.y + r * a.stride, a.factors + r * a.factor_stride, a.count);
      continue;
    }
    ApplyRow(a.y + r * a.stride, a.factors + r * a.factor_stride, a.count, &a.sums[r]);
  }
}

}  // namespace temper::numerics::kernels
