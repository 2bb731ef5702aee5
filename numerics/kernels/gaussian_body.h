#pragma once

// Philox and Box-Muller over a vector type S; included by one .cc file per instruction set. S has
//   F, I          vectors of kWidth floats and 32-bit integers
//   Words         the four Philox words of kWidth counters, in the lane order that Store undoes
//   Store(n, out)   4 * kWidth numbers, counter by counter; StorePairs(a, b, out): 8 * kWidth
//   Fma, Mul, Sub, Sqrt, Float(float), Int(int), ToFloat(I), Bits(F), FromBits(I), And, Xor,
//   AddInt, ShiftRight<n> (logical), ShiftRightSigned<n>, ShiftLeft<n>, SwapWhereOdd(q, a, b)
// Polynomials: docs/numerics.md, "Gaussians".

#include <cstdint>

#include "numerics/kernels/gaussian_kernels.h"

namespace temper::numerics::kernels {
namespace {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u;
constexpr uint32_t kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxW1 = 0xBB67AE85u;

// -2 ln(1 + f) = -2 f + f^2 P(f) on f + 1 in [sqrt(1/2), sqrt(2)); relative error 3.0e-8.
constexpr float kLog[8] = {0x1.fffffap-1f, -0x1.5556f4p-1f, 0x1.00049ap-1f, -0x1.98d2c0p-2f,
                           0x1.535d32p-2f, -0x1.318524p-2f, 0x1.250494p-2f, -0x1.65c766p-3f};
constexpr float kMinusTwoLn2 = -0x1.62e430p+0f;
// sin(2 pi r) = r S(r^2), |r| <= 1/8; relative error 3.2e-9.
constexpr float kSin[4] = {0x1.921fb6p+2f, -0x1.4abbbap+5f, 0x1.465e92p+6f, -0x1.2d9302p+6f};
// cos(2 pi r) = 1 + r^2 C(r^2); error 3.8e-8.
constexpr float kCos[3] = {-0x1.3bd39cp+4f, 0x1.03b090p+6f, -0x1.4e844ap+6f};
// The same for 16-bit uniforms, whose steps are coarser than these errors: 8.5e-6, 1.6e-6 relative,
// 1.3e-5.
constexpr float kFastLog[5] = {0x1.ffea5ap-1f, -0x1.54b9e0p-1f, 0x1.03f908p-1f, -0x1.c1166ep-2f,
                               0x1.232512p-2f};
constexpr float kFastSin[3] = {0x1.921f8ep+2f, -0x1.4aa60ap+5f, 0x1.3f3df0p+6f};
constexpr float kFastCos[2] = {-0x1.3bafa0p+4f, 0x1.f8d4aep+5f};
// Added to and taken from |x| < 2^21, it rounds x to the nearest even integer.
constexpr float kRound = 0x1.8p+23f;
// Bits of sqrt(1/2): the mantissa's range is [sqrt(1/2), sqrt(2)).
constexpr int kSqrtHalfBits = 0x3f3504f3;

// The value at x of the polynomial with these coefficients, lowest first, by Horner's rule.
template <class S, int n>
inline typename S::F Polynomial(const float (&coefficients)[n], typename S::F x) {
  typename S::F value = S::Float(coefficients[n - 1]);
#pragma GCC unroll 8
  for (int i = n - 2; i >= 0; --i) value = S::Fma(value, x, S::Float(coefficients[i]));
  return value;
}

// sqrt(-2 ln u1) * (cos, sin)(2 pi u2) for u1 in (0, 1], u2 in [0, 1].
template <class S, bool kFast>
inline void BoxMuller(typename S::F u1, typename S::F u2, typename S::F* first,
                      typename S::F* second) {
  using F = typename S::F;
  using I = typename S::I;
  // u1 = 2^e (1 + f).
  const I shifted = S::AddInt(S::Bits(u1), S::Int(-kSqrtHalfBits));
  const F e = S::ToFloat(S::template ShiftRightSigned<23>(shifted));
  const F f =
      S::Sub(S::FromBits(S::AddInt(S::And(shifted, S::Int(0x7fffff)), S::Int(kSqrtHalfBits))),
             S::Float(1.0f));
  F p;
  if constexpr (kFast) {
    p = Polynomial<S>(kFastLog, f);
  } else {
    p = Polynomial<S>(kLog, f);
  }
  const F log_m = S::Fma(S::Mul(f, f), p, S::Mul(f, S::Float(-2.0f)));
  const F radius = S::Sqrt(S::Fma(e, S::Float(kMinusTwoLn2), log_m));

  // u2 = q / 4 + r, q the nearest integer, r exact.
  const F rounded = S::Fma(u2, S::Float(4.0f), S::Float(kRound));
  const I q = S::Bits(rounded);
  const F r = S::Fma(S::Sub(rounded, S::Float(kRound)), S::Float(-0.25f), u2);
  const F z = S::Mul(r, r);
  F s, c;
  if constexpr (kFast) {
    s = S::Mul(Polynomial<S>(kFastSin, z), r);
    c = S::Fma(Polynomial<S>(kFastCos, z), z, S::Float(1.0f));
  } else {
    s = S::Mul(Polynomial<S>(kSin, z), r);
    c = S::Fma(Polynomial<S>(kCos, z), z, S::Float(1.0f));
  }
  S::SwapWhereOdd(q, &c, &s);

  // cos is negative in quadrants 1 and 2, sin in 2 and 3: bit 1 of q + 1 and of q.
  const I two = S::Int(2);
  const I cos_sign = S::template ShiftLeft<30>(S::And(S::AddInt(q, S::Int(1)), two));
  const I sin_sign = S::template ShiftLeft<30>(S::And(q, two));
  *first = S::FromBits(S::Xor(S::Bits(S::Mul(radius, c)), cos_sign));
  *second = S::FromBits(S::Xor(S::Bits(S::Mul(radius, s)), sin_sign));
}

// Two words make two normals.
template <class S>
inline void ExactNormals(typename S::I w0, typename S::I w1, typename S::F* first,
                         typename S::F* second) {
  const typename S::F u1 =
      S::Fma(S::ToFloat(S::template ShiftRight<1>(w0)), S::Float(0x1p-31f), S::Float(0x1p-32f));
  const typename S::F u2 = S::Mul(S::ToFloat(S::template ShiftRight<1>(w1)), S::Float(0x1p-31f));
  BoxMuller<S, false>(u1, u2, first, second);
}

// One word makes two normals.
template <class S>
inline void FastNormals(typename S::I w, typename S::F* first, typename S::F* second) {
  const typename S::F u1 =
      S::Fma(S::ToFloat(S::And(w, S::Int(0xffff))), S::Float(0x1p-16f), S::Float(0x1p-17f));
  const typename S::F u2 = S::Mul(S::ToFloat(S::template ShiftRight<16>(w)), S::Float(0x1p-16f));
  BoxMuller<S, true>(u1, u2, first, second);
}

constexpr int PerCounter(Numbers numbers) { return numbers == Numbers::kFast ? 8 : 4; }

// Finishes the numbers of a block of Philox words: normals times scale plus offset, or the words.
template <class S, Numbers kNumbers>
inline void FinishBlock(const typename S::Words& words, const GaussianArguments& g, float* out) {
  using F = typename S::F;
  const F scale = S::Float(g.scale), offset = S::Float(g.offset);
  F n[4];
  if constexpr (kNumbers == Numbers::kWords) {
    for (int i = 0; i < 4; ++i) n[i] = S::FromBits(words.w[i]);
    S::Store(n, out);
  } else if constexpr (kNumbers == Numbers::kExact) {
    ExactNormals<S>(words.w[0], words.w[1], &n[0], &n[1]);
    ExactNormals<S>(words.w[2], words.w[3], &n[2], &n[3]);
    for (int i = 0; i < 4; ++i) n[i] = S::Fma(n[i], scale, offset);
    S::Store(n, out);
  } else {
    F sines[4];
    for (int i = 0; i < 4; ++i) {
      FastNormals<S>(words.w[i], &n[i], &sines[i]);
      n[i] = S::Fma(n[i], scale, offset);
      sines[i] = S::Fma(sines[i], scale, offset);
    }
    S::StorePairs(n, sines, out);
  }
}

inline void Copy(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// The whole blocks of one row.
template <class S, Numbers kNumbers>
inline void WholeBlocks(const typename S::Philox& philox, const GaussianArguments& g, int64_t r,
                        int64_t whole) {
  constexpr int64_t kBlock = PerCounter(kNumbers) * S::kWidth;
  for (int64_t b = 0; b < whole; ++b) {
    typename S::Words words;
    philox.Run(g.first_counter + static_cast<uint32_t>(b * S::kWidth), g.row[r], &words);
    FinishBlock<S, kNumbers>(words, g, g.out + r * g.stride + b * kBlock);
  }
}

// Rows under one key share the round keys; two rows share the block of their rests where both fit
// into it, because a row of 96 is a block and a half of AVX-512.
template <class S, Numbers kNumbers>
inline void RowsLoop(const GaussianArguments& g) {
  constexpr int64_t kBlock = PerCounter(kNumbers) * S::kWidth;
  const int64_t whole = g.count / kBlock, rest = g.count % kBlock;
  const uint32_t rest_counter = g.first_counter + static_cast<uint32_t>(whole * S::kWidth);
  alignas(64) float scratch[kBlock];
  int64_t r = 0;
  while (r < g.rows) {
    const typename S::Philox philox(g.row[r].key, g.site);
    const uint64_t key = g.row[r].key;
    for (; r < g.rows && g.row[r].key == key; ++r) {
      WholeBlocks<S, kNumbers>(philox, g, r, whole);
      if (rest == 0) continue;
      typename S::Words words;
      float* out = g.out + r * g.stride + whole * kBlock;
      const bool pair =
          S::kPairs && rest <= kBlock / 2 && r + 1 < g.rows && g.row[r + 1].key == key;
      if (!pair) {
        philox.Run(rest_counter, g.row[r], &words);
        FinishBlock<S, kNumbers>(words, g, scratch);
        Copy(scratch, rest, out);
        continue;
      }
      if constexpr (S::kPairs) {
        WholeBlocks<S, kNumbers>(philox, g, r + 1, whole);
        philox.RunPair(rest_counter, g.row[r], g.row[r + 1], &words);
        FinishBlock<S, kNumbers>(words, g, scratch);
        Copy(scratch, rest, out);
        Copy(scratch + kBlock / 2, rest, out + g.stride);
        ++r;
      }
    }
  }
}

template <class S>
inline void GaussianLoop(const GaussianArguments& g) {
  switch (g.numbers) {
    case Numbers::kExact:
      return RowsLoop<S, Numbers::kExact>(g);
    case Numbers::kFast:
      return RowsLoop<S, Numbers::kFast>(g);
    case Numbers::kWords:
      return RowsLoop<S, Numbers::kWords>(g);
  }
}

// The lanes of a row's sums before they are added up.
struct LaneSums {
  static constexpr int kLanes = 16;
  alignas(64) double error[kLanes];
  alignas(64) double value[kLanes];
};

inline void MultiplyTail(float* y, const float* factors, int64_t begin, int64_t count) {
  for (int64_t i = begin; i < count; ++i) y[i] *= factors[i];
}

// The elements from `begin` on, one at a time, in the lanes they belong to.
inline void ApplyTail(float* y, const float* factors, int64_t begin, int64_t count, LaneSums* lanes,
                      RowSums* sums) {
  for (int64_t i = begin; i < count; ++i) {
    const float before = y[i];
    const float after = before * factors[i];
    y[i] = after;
    sums->changed += (after < before || after > before) ? 1 : 0;
    if (__builtin_fabsf(after) < __builtin_inff()) {
      const double error = static_cast<double>(after - before);
      const double value = static_cast<double>(before);
      lanes->error[i % LaneSums::kLanes] += error * error;
      lanes->value[i % LaneSums::kLanes] += value * value;
    } else {
      ++sums->non_finite;
    }
  }
}

inline void AddLanes(LaneSums* lanes, RowSums* sums) {
  for (int width = LaneSums::kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) {
      lanes->error[l] += lanes->error[l + width];
      lanes->value[l] += lanes->value[l + width];
    }
  }
  sums->error = lanes->error[0];
  sums->value = lanes->value[0];
}

}  // namespace
}  // namespace temper::numerics::kernels
