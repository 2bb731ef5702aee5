// The reference path: plain C++ on any machine, bit-identical to the vector paths.

#include "numerics/kernels/gaussian_body.h"

namespace temper::numerics::kernels {
namespace {

struct Scalar {
  static constexpr int kWidth = 1;
  static constexpr bool kPairs = false;
  using F = float;
  using I = int32_t;
  struct Words {
    I w[4];
  };

  static F Fma(F a, F b, F c) { return __builtin_fmaf(a, b, c); }
  static F Mul(F a, F b) { return a * b; }
  static F Sub(F a, F b) { return a - b; }
  static F Sqrt(F a) { return __builtin_sqrtf(a); }
  static F Float(float v) { return v; }
  static I Int(int v) { return v; }
  static F ToFloat(I v) { return static_cast<float>(v); }
  static I Bits(F v) { return __builtin_bit_cast(I, v); }
  static F FromBits(I v) { return __builtin_bit_cast(F, v); }
  static I And(I a, I b) { return a & b; }
  static I Xor(I a, I b) { return a ^ b; }
  static I AddInt(I a, I b) {
    return static_cast<I>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
  template <int n>
  static I ShiftRight(I a) {
    return static_cast<I>(static_cast<uint32_t>(a) >> n);
  }
  template <int n>
  static I ShiftRightSigned(I a) {
    return a >> n;
  }
  template <int n>
  static I ShiftLeft(I a) {
    return static_cast<I>(static_cast<uint32_t>(a) << n);
  }
  static void SwapWhereOdd(I q, F* a, F* b) {
    if ((q & 1) == 0) return;
    const F kept = *a;
    *a = *b;
    *b = kept;
  }
  static void Store(const F* n, float* out) {
    for (int i = 0; i < 4; ++i) out[i] = n[i];
  }

  // Of a counter, a first and b after it.
  static void StorePairs(const F* a, const F* b, float* out) {
    Store(a, out);
    Store(b, out + 4);
  }

  class Philox {
   public:
    Philox(uint64_t key, uint32_t site) : key_(key), site_(site) {}
    void Run(uint32_t first_counter, const RowKey& row, Words* words) const {
      uint32_t c0 = first_counter, c1 = row.position, c2 = site_, c3 = row.lane;
      uint32_t k0 = static_cast<uint32_t>(key_);
      uint32_t k1 = static_cast<uint32_t>(key_ >> 32);
      for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{kPhiloxM0} * c0;
        const uint64_t p1 = uint64_t{kPhiloxM1} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += kPhiloxW0;
        k1 += kPhiloxW1;
      }
      words->w[0] = static_cast<I>(c0);
      words->w[1] = static_cast<I>(c1);
      words->w[2] = static_cast<I>(c2);
      words->w[3] = static_cast<I>(c3);
    }

   private:
    uint64_t key_;
    uint32_t site_;
  };
};

}  // namespace

void GaussianScalar(const GaussianArguments& g) { GaussianLoop<Scalar>(g); }

void ApplyScalar(const ApplyArguments& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    if (a.sums == nullptr) {
      MultiplyTail(a.y + r * a.stride, a.factors + r * a.factor_stride, 0, a.count);
      continue;
    }
    LaneSums lanes = {};
    a.sums[r] = {};
    ApplyTail(a.y + r * a.stride, a.factors + r * a.factor_stride, 0, a.count, &lanes, &a.sums[r]);
    AddLanes(&lanes, &a.sums[r]);
  }
}

}  // namespace temper::numerics::kernels
