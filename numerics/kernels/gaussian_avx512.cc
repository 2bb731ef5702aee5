// Sixteen counters, 64 numbers at a time. Compiled for AVX-512 F, DQ and VL; called only there.

#include <immintrin.h>

#include "numerics/kernels/gaussian_body.h"

namespace temper::numerics::kernels {
namespace {

struct Avx512 {
  static constexpr int kWidth = 16;
  static constexpr bool kPairs = true;
  using F = __m512;
  using I = __m512i;
  struct Words {
    I w[4];
  };

  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Sqrt(F a) { return _mm512_sqrt_ps(a); }
  static F Float(float v) { return _mm512_set1_ps(v); }
  static I Int(int v) { return _mm512_set1_epi32(v); }
  static F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
  static I Bits(F v) { return _mm512_castps_si512(v); }
  static F FromBits(I v) { return _mm512_castsi512_ps(v); }
  static I And(I a, I b) { return _mm512_and_si512(a, b); }
  static I Xor(I a, I b) { return _mm512_xor_si512(a, b); }
  static I AddInt(I a, I b) { return _mm512_add_epi32(a, b); }
  template <int n>
  static I ShiftRight(I a) {
    return _mm512_srli_epi32(a, n);
  }
  template <int n>
  static I ShiftRightSigned(I a) {
    return _mm512_srai_epi32(a, n);
  }
  template <int n>
  static I ShiftLeft(I a) {
    return _mm512_slli_epi32(a, n);
  }
  static void SwapWhereOdd(I q, F* a, F* b) {
    const __mmask16 odd = _mm512_test_epi32_mask(q, Int(1));
    const F kept = *a;
    *a = _mm512_mask_mov_ps(kept, odd, *b);
    *b = _mm512_mask_mov_ps(*b, odd, kept);
  }
  // Lane 4 j + k holds counter 4 k + j, so that a transpose inside 128-bit quarters is enough.
  static void Store(const F* n, float* out) {
    const F t0 = _mm512_unpacklo_ps(n[0], n[1]), t1 = _mm512_unpackhi_ps(n[0], n[1]);
    const F t2 = _mm512_unpacklo_ps(n[2], n[3]), t3 = _mm512_unpackhi_ps(n[2], n[3]);
    _mm512_storeu_ps(out, _mm512_shuffle_ps(t0, t2, 0x44));
    _mm512_storeu_ps(out + 16, _mm512_shuffle_ps(t0, t2, 0xee));
    _mm512_storeu_ps(out + 32, _mm512_shuffle_ps(t1, t3, 0x44));
    _mm512_storeu_ps(out + 48, _mm512_shuffle_ps(t1, t3, 0xee));
  }

  // Of each counter, a first and b after it.
  static void StorePairs(const F* a, const F* b, float* out) {
    alignas(64) float first[64], second[64];
    Store(a, first);
    Store(b, second);
    const I low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const I high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int i = 0; i < 4; ++i) {
      const F x = _mm512_load_ps(first + 16 * i), y = _mm512_load_ps(second + 16 * i);
      _mm512_storeu_ps(out + 32 * i, _mm512_permutex2var_ps(x, low, y));
      _mm512_storeu_ps(out + 32 * i + 16, _mm512_permutex2var_ps(x, high, y));
    }
  }

  // As in the AVX2 path: one counter in the low half of each 64-bit lane.
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
    // Counters first_counter + 0 .. 15 of one row.
    void Run(uint32_t first_counter, const RowKey& row, Words* words) const {
      const I first = Int(static_cast<int>(first_counter));
      const I position = Int(static_cast<int>(row.position));
      const I lane = Int(static_cast<int>(row.lane));
      Rounds(AddInt(first, _mm512_setr_epi32(0, 0, 8, 0, 1, 0, 9, 0, 2, 0, 10, 0, 3, 0, 11, 0)),
             AddInt(first, _mm512_setr_epi32(4, 0, 12, 0, 5, 0, 13, 0, 6, 0, 14, 0, 7, 0, 15, 0)),
             position, lane, words);
    }
    // Counters first_counter + 0 .. 7 of two rows: the first row's numbers come out first.
    void RunPair(uint32_t first_counter, const RowKey& one, const RowKey& two, Words* words) const {
      const I first = Int(static_cast<int>(first_counter));
      Rounds(AddInt(first, _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 1, 0, 2, 0, 2, 0, 3, 0, 3, 0)),
             AddInt(first, _mm512_setr_epi32(4, 0, 4, 0, 5, 0, 5, 0, 6, 0, 6, 0, 7, 0, 7, 0)),
             Alternate(one.position, two.position), Alternate(one.lane, two.lane), words);
    }

   private:
    static I Alternate(uint32_t one, uint32_t two) {
      const auto first = static_cast<long long>(one), second = static_cast<long long>(two);
      return _mm512_set_epi64(second, first, second, first, second, first, second, first);
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
        words->w[i] = _mm512_mask_mov_epi32(a[i], 0xaaaa, _mm512_slli_epi64(b[i], 32));
      }
    }

    static I Xor3(I a, I b, I c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
    static void Round(I key0, I key1, I* c) {
      const I p0 = _mm512_mul_epu32(c[0], Int(static_cast<int>(kPhiloxM0)));
      const I p1 = _mm512_mul_epu32(c[2], Int(static_cast<int>(kPhiloxM1)));
      c[0] = Xor3(_mm512_srli_epi64(p1, 32), c[1], key0);
      c[1] = p1;
      c[2] = Xor3(_mm512_srli_epi64(p0, 32), c[3], key1);
      c[3] = p0;
    }

    int site_;
    int key0_[10];
    int key1_[10];
  };
};

// sum + v^2; the product of two floats is exact in double, so fusing does not change the result.
inline __m512d AddSquare(__m256 v, __m512d sum) {
  const __m512d d = _mm512_cvtps_pd(v);
  return _mm512_fmadd_pd(d, d, sum);
}

}  // namespace

void GaussianAvx512(const GaussianArguments& g) { GaussianLoop<Avx512>(g); }

namespace {

void ApplyRow(float* y, const float* factors, int64_t count, RowSums* sums) {
  __m512d error[2], value[2];
  for (int j = 0; j < 2; ++j) error[j] = value[j] = _mm512_setzero_pd();
  const __m512 infinity = _mm512_set1_ps(__builtin_inff());
  const __m512i one = _mm512_set1_epi32(1);
  __m512i changed = _mm512_setzero_si512();
  int64_t non_finite = 0, i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512 before = _mm512_loadu_ps(y + i);
    const __m512 after = _mm512_mul_ps(before, _mm512_loadu_ps(factors + i));
    _mm512_storeu_ps(y + i, after);
    const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(after), infinity, _CMP_LT_OQ);
    changed = _mm512_mask_add_epi32(changed, _mm512_cmp_ps_mask(after, before, _CMP_NEQ_OQ),
                                    changed, one);
    __m512 e = _mm512_sub_ps(after, before);
    __m512 v = before;
    if (__builtin_expect(finite != 0xffff, 0)) {
      e = _mm512_maskz_mov_ps(finite, e);
      v = _mm512_maskz_mov_ps(finite, v);
      non_finite += 16 - _mm_popcnt_u32(finite);
    }
    error[0] = AddSquare(_mm512_castps512_ps256(e), error[0]);
    error[1] = AddSquare(_mm512_extractf32x8_ps(e, 1), error[1]);
    value[0] = AddSquare(_mm512_castps512_ps256(v), value[0]);
    value[1] = AddSquare(_mm512_extractf32x8_ps(v, 1), value[1]);
  }
  sums->changed = _mm512_reduce_add_epi32(changed);
  sums->non_finite = non_finite;
  LaneSums lanes;
  for (int j = 0; j < 2; ++j) {
    _mm512_store_pd(lanes.error + 8 * j, error[j]);
    _mm512_store_pd(lanes.value + 8 * j, value[j]);
  }
  ApplyTail(y, factors, i, count, &lanes, sums);
  AddLanes(&lanes, sums);
}

void MultiplyRow(float* y, const float* factors, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(factors + i)));
  }
  MultiplyTail(y, factors, i, count);
}

}  // namespace

void ApplyAvx512(const ApplyArguments& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    if (a.sums == nullptr) {
      MultiplyRow(a.y + r * a.stride, a.factors + r * a.factor_stride, a.count);
      continue;
    }
    ApplyRow(a.y + r * a.stride, a.factors + r * a.factor_stride, a.count, &a.sums[r]);
  }
}

}  // namespace temper::numerics::kernels
