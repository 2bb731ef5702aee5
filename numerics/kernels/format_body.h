#pragma once

// Fake quantization over vectors of W floats; included by one .cc file per instruction set, which
// gives FormatKernelsOf<W, Wide>(). Wide works on vectors of 64-bit lanes: Multiply (the low
// halves, to 64 bits), InterleaveEven and InterleaveOdd (a0 b0 a2 b2 ..., a1 b1 a3 b3 ...).
//
// Rounding to a grid of m fraction bits whose steps stay 2^(least - m) below 2^least: adding
// 1.5 * 2^(23 - m) times the value's power of two (at least 2^least) leaves exactly the bits that
// the grid has, rounded to nearest even by the adder, and taking it away again gives the grid
// point.

#include <cstdint>

#include "numerics/kernels/format_kernels.h"

namespace temper::numerics::kernels {
namespace {

template <int W>
struct Vector {
  typedef float F __attribute__((vector_size(4 * W)));
  typedef int32_t I __attribute__((vector_size(4 * W)));

  static F Load(const float* from) {
    F v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  static I LoadInt(const void* from) {
    I v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  static void Store(F v, float* to) { __builtin_memcpy(to, &v, sizeof(v)); }
  static void StoreInt(I v, int32_t* to) { __builtin_memcpy(to, &v, sizeof(v)); }
  static F Float(float v) { return v - F{}; }
  static I Int(int32_t v) { return v - I{}; }
  static I Bits(F v) { return (I)v; }
  static F FromBits(I v) { return (F)v; }
  static I Min(I a, I b) { return a < b ? a : b; }
  static I Max(I a, I b) { return a > b ? a : b; }
};

// Lane by lane, the largest of the 128-bit quarters or halves.
inline Vector<4>::I MaxOfQuarters(Vector<4>::I v) { return v; }
inline Vector<4>::I MaxOfQuarters(Vector<8>::I v) {
  return Vector<4>::Max(__builtin_shufflevector(v, v, 0, 1, 2, 3),
                        __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
inline Vector<4>::I MaxOfQuarters(Vector<16>::I v) {
  return MaxOfQuarters(Vector<8>::Max(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)));
}

template <class I>
inline int32_t ReduceMax(I vector) {
  Vector<4>::I v = MaxOfQuarters(vector);
  v = Vector<4>::Max(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));
  v = Vector<4>::Max(v, __builtin_shufflevector(v, v, 1, 0, 3, 2));
  return v[0];
}

constexpr int32_t kMagnitude = 0x7fffffff;
constexpr int32_t kNan = 0x7fc00000;

// A grid's constants, as bits of floats.
struct E2M1 {
  static constexpr int kFractionBits = 1;
  static constexpr int32_t kLeast = 127 << 23;  // 1: below it the steps stay 0.5
  static constexpr int32_t kMax = 0x40c00000;   // 6
};
struct E4M3 {
  static constexpr int kFractionBits = 3;
  static constexpr int32_t kLeast = 121 << 23;  // 2^-6
  static constexpr int32_t kMax = 0x43e00000;   // 448
};

// The power of two whose binade's steps a magnitude is rounded with.
template <int W, class Grid>
inline typename Vector<W>::I Binade(typename Vector<W>::I magnitude) {
  using V = Vector<W>;
  return V::Max(magnitude & V::Int(kInfinityBits), V::Int(Grid::kLeast));
}

// magnitude: bits of a non-negative number, at most Grid::kMax.
template <int W, class Grid>
inline typename Vector<W>::F Nearest(typename Vector<W>::I magnitude) {
  using V = Vector<W>;
  const typename V::F rounder = V::FromBits(
      Binade<W, Grid>(magnitude) + V::Int(((23 - Grid::kFractionBits) << 23) + 0x00400000));
  return (V::FromBits(magnitude) + rounder) - rounder;
}

// Up with the probability that is the distance from the grid point below, in steps.
template <int W, class Grid>
inline typename Vector<W>::F Stochastic(typename Vector<W>::I magnitude,
                                        typename Vector<W>::I words) {
  using V = Vector<W>;
  using F = typename V::F;
  using I = typename V::I;
  const I step = Binade<W, Grid>(magnitude) - V::Int(Grid::kFractionBits << 23);
  const F steps = V::FromBits(magnitude) * V::FromBits(V::Int(254 << 23) - step);
  const F below = __builtin_convertvector(__builtin_convertvector(steps, I), F);
  const I high = (words >> 9) & V::Int(0x7fffff);
  const F uniform = (__builtin_convertvector(high, F) + V::Float(0.5f)) * V::Float(0x1p-23f);
  const I up = (uniform < steps - below) & V::Bits(V::Float(1.0f));
  return (below + V::FromBits(up)) * V::FromBits(step);
}

// Wide: streams the result past the caches; void: stores it.
template <int W, class Grid, bool multiply, bool stochastic, class Wide>
inline void ApplyVector(const float* x, float* out, const uint32_t* words,
                        typename Vector<W>::F scale, typename Vector<W>::F divisor) {
  using V = Vector<W>;
  const typename V::F value = V::Load(x);
  const typename V::F scaled = multiply ? value * divisor : value / divisor;
  // NaN and infinity as well become the largest magnitude here; their scale is NaN.
  const typename V::I magnitude = V::Min(V::Bits(scaled) & V::Int(kMagnitude), V::Int(Grid::kMax));
  typename V::F grid;
  if constexpr (stochastic) {
    grid = Stochastic<W, Grid>(magnitude, V::LoadInt(words));
  } else {
    grid = Nearest<W, Grid>(magnitude);
  }
  const typename V::I sign = V::Bits(value) & V::Int(~kMagnitude);
  const typename V::F result = V::FromBits(V::Bits(grid) | sign) * scale;
  if constexpr (__is_same(Wide, void)) {
    V::Store(result, out);
  } else {
    Wide::Stream(result, out);
  }
}

// The last values of a row, fewer than a vector.
template <int W, class Grid, bool multiply, bool stochastic>
inline void ApplyRest(const ApplyFormatArguments& a, int64_t begin, int64_t count,
                      typename Vector<W>::F scale, typename Vector<W>::F divisor) {
  float x[W] = {}, out[W];
  uint32_t words[W] = {};
  for (int64_t i = 0; i < count; ++i) {
    x[i] = a.x[begin + i];
    if constexpr (stochastic) words[i] = a.words[begin + i];
  }
  ApplyVector<W, Grid, multiply, stochastic, void>(x, out, words, scale, divisor);
  for (int64_t i = 0; i < count; ++i) a.out[begin + i] = out[i];
}

// fixed_block: the block size where it is known to the compiler, else 0.
template <int W, class Grid, bool multiply, bool stochastic, int64_t fixed_block, class Wide>
void ApplyBlocks(const ApplyFormatArguments& a) {
  using V = Vector<W>;
  const int64_t block = fixed_block != 0 ? fixed_block : a.block;
  int64_t b = 0;
  for (int64_t begin = 0; begin < a.count; begin += block, ++b) {
    const typename V::F scale = V::Float(a.scale[b]);
    const typename V::F divisor = V::Float(multiply ? a.inverse[b] : a.scale[b]);
    const int64_t end = begin + block < a.count ? begin + block : a.count;
    int64_t i = begin;
    for (; i + W <= end; i += W) {
      ApplyVector<W, Grid, multiply, stochastic, Wide>(
          a.x + i, a.out + i, stochastic ? a.words + i : nullptr, scale, divisor);
    }
    if (i < end) ApplyRest<W, Grid, multiply, stochastic>(a, i, end - i, scale, divisor);
  }
}

template <int W, class Wide, class Grid, bool multiply, int64_t fixed_block>
void ApplyRounded(const ApplyFormatArguments& a) {
  if (a.words != nullptr) return ApplyBlocks<W, Grid, multiply, true, 0, void>(a);
  if (!a.stream || reinterpret_cast<uintptr_t>(a.out) % (4 * W) != 0) {
    return ApplyBlocks<W, Grid, multiply, false, fixed_block, void>(a);
  }
  ApplyBlocks<W, Grid, multiply, false, fixed_block, Wide>(a);
  Wide::Fence();  // streamed values are ordered before what another thread is told next
}

template <int W, class Wide>
void Apply(const ApplyFormatArguments& a) {
  if (a.e4m3) return ApplyRounded<W, Wide, E4M3, false, 0>(a);
  if (a.inverse == nullptr) return ApplyRounded<W, Wide, E2M1, false, 16>(a);
  return ApplyRounded<W, Wide, E2M1, true, 32>(a);
}

template <int W>
inline typename Vector<W>::I MagnitudeBits(const float* x) {
  return Vector<W>::LoadInt(x) & Vector<W>::Int(kMagnitude);
}

// Largest lane-wise magnitudes of a run of at most `block` values.
template <int W>
inline typename Vector<W>::I MaxOfRun(const float* x, int64_t count) {
  using V = Vector<W>;
  typename V::I largest = V::Int(0);
  int64_t i = 0;
  // Long runs come from memory: four places at once keep more of its requests in flight.
  if (count >= 4096) {
    const int64_t quarter = count / 4 / W * W;
    typename V::I maxima[4] = {largest, largest, largest, largest};
    for (; i < quarter; i += W) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        maxima[j] = V::Max(maxima[j], MagnitudeBits<W>(x + j * quarter + i));
      }
    }
    largest = V::Max(V::Max(maxima[0], maxima[1]), V::Max(maxima[2], maxima[3]));
    i = 4 * quarter;
  }
  for (; i + W <= count; i += W) largest = V::Max(largest, MagnitudeBits<W>(x + i));
  if (i < count) {
    float rest[W] = {};
    __builtin_memcpy(rest, x + i, sizeof(float) * static_cast<uint64_t>(count - i));
    largest = V::Max(largest, MagnitudeBits<W>(rest));
  }
  return largest;
}

// Four blocks at a time: interleaving brings their lanes side by side, so that one maximum serves
// all four. fixed_block: the block size where it is known to the compiler, else 0.
template <int W, class Wide, int64_t fixed_block>
void AmaxOfBlocks(const BlockAmaxArguments& a) {
  using V = Vector<W>;
  using I = typename V::I;
  int64_t begin = 0, b = 0;
  if constexpr (fixed_block != 0) {
    for (; begin + 4 * fixed_block <= a.count; begin += 4 * fixed_block, b += 4) {
      I block[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        block[j] = MaxOfRun<W>(a.x + begin + j * fixed_block, fixed_block);
      }
      const I first = V::Max((I)Wide::InterleaveLow32(block[0], block[1]),
                             (I)Wide::InterleaveHigh32(block[0], block[1]));
      const I second = V::Max((I)Wide::InterleaveLow32(block[2], block[3]),
                              (I)Wide::InterleaveHigh32(block[2], block[3]));
      using U = typename Wide::U;
      const I all = V::Max((I)Wide::InterleaveEven((U)first, (U)second),
                           (I)Wide::InterleaveOdd((U)first, (U)second));
      const Vector<4>::I four = MaxOfQuarters(all);
      __builtin_memcpy(a.amax + b, &four, sizeof(four));
    }
  }
  const int64_t block = fixed_block != 0 ? fixed_block : a.block;
  for (; begin < a.count; begin += block, ++b) {
    const int64_t count = begin + block < a.count ? block : a.count - begin;
    a.amax[b] = ReduceMax(MaxOfRun<W>(a.x + begin, count));
  }
}

template <int W, class Wide>
void BlockAmax(const BlockAmaxArguments& a) {
  if (a.block == 16) return AmaxOfBlocks<W, Wide, 16>(a);
  if (a.block == 32) return AmaxOfBlocks<W, Wide, 32>(a);
  return AmaxOfBlocks<W, Wide, 0>(a);
}

// `value` where the block's magnitude is finite, else NaN.
template <int W>
inline typename Vector<W>::I OrNan(typename Vector<W>::I amax, typename Vector<W>::I value) {
  using V = Vector<W>;
  return amax < V::Int(kInfinityBits) ? value : V::Int(kNan);
}

template <int W>
void Mxfp4Scales(const ScaleArguments& a) {
  using V = Vector<W>;
  for (int64_t b = 0; b < a.blocks; b += W) {
    const typename V::I amax = V::LoadInt(a.amax + b);
    // Exponent fields: 4 = 2^2 is the largest power of two in E2M1; field 0 stands for 2^-127.
    const typename V::I exponent = V::Max((amax >> 23) - V::Int(2), V::Int(0));
    const typename V::I scale = exponent == V::Int(0) ? V::Int(0x00400000) : exponent << 23;
    V::Store(V::FromBits(OrNan<W>(amax, scale)), a.scale + b);
    V::Store(V::FromBits((V::Int(254) - exponent) << 23), a.inverse + b);
  }
}

template <int W>
void Nvfp4Scales(const ScaleArguments& a) {
  using V = Vector<W>;
  const typename V::F tensor_scale = V::Float(a.tensor_scale);
  for (int64_t b = 0; b < a.blocks; b += W) {
    const typename V::I amax = V::LoadInt(a.amax + b);
    const typename V::F ratio = (V::FromBits(amax) / V::Float(6.0f)) / tensor_scale;
    const typename V::I least = V::Bits(V::Float(0x1p-9f));
    const typename V::I clamped = V::Min(V::Max(V::Bits(ratio), least), V::Int(E4M3::kMax));
    const typename V::F scale = Nearest<W, E4M3>(clamped) * tensor_scale;
    V::Store(V::FromBits(OrNan<W>(amax, V::Bits(scale))), a.scale + b);
  }
}

template <int W>
void Fp8Scales(const ScaleArguments& a) {
  using V = Vector<W>;
  for (int64_t b = 0; b < a.blocks; b += W) {
    const typename V::I amax = V::LoadInt(a.amax + b);
    const typename V::I scale =
        V::Max(V::Bits(V::FromBits(amax) / V::Float(448.0f)), V::Bits(V::Float(0x1p-126f)));
    const typename V::I or_one = amax == V::Int(0) ? V::Bits(V::Float(1.0f)) : scale;
    V::Store(V::FromBits(OrNan<W>(amax, or_one)), a.scale + b);
  }
}

constexpr uint32_t kPhiloxM0 = 0xD2511F53u;
constexpr uint32_t kPhiloxM1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxW1 = 0xBB67AE85u;

// Each 64-bit lane carries one counter in its low half: the 32 x 32 -> 64 bit product does not read
// the high one. Even lanes hold counters 0, 1, ..., odd ones the second half, so that interleaving
// neighbours puts the words in order.
template <class Wide>
void PhiloxWords(const WordsArguments& a) {
  constexpr int kLanes = sizeof(typename Wide::U) / sizeof(uint64_t);
  using U = typename Wide::U;
  const U low = U{} + 0xffffffffu;
  uint64_t counters[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    counters[l] = static_cast<uint64_t>(l % 2 * (kLanes / 2) + l / 2);
  }
  U lane_counter;
  __builtin_memcpy(&lane_counter, counters, sizeof(lane_counter));
  static_assert(kWordsPadding % (4 * kLanes) == 0);
  for (int64_t begin = 0; begin < a.count; begin += 4 * kLanes) {
    U c0 = lane_counter + (a.first_counter + static_cast<uint64_t>(begin / 4));
    U c1 = U{} + a.row.position, c2 = U{} + a.site, c3 = U{} + a.row.lane;
    uint32_t k0 = static_cast<uint32_t>(a.row.key);
    uint32_t k1 = static_cast<uint32_t>(a.row.key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const U p0 = Wide::Multiply(c0, U{} + kPhiloxM0);
      const U p1 = Wide::Multiply(c2, U{} + kPhiloxM1);
      c0 = (p1 >> 32) ^ c1 ^ (U{} + k0);
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ (U{} + k1);
      c3 = p0;
      k0 += kPhiloxW0;
      k1 += kPhiloxW1;
    }
    const U first = (c0 & low) | (c1 << 32), second = (c2 & low) | (c3 << 32);
    const U lows = Wide::InterleaveEven(first, second), highs = Wide::InterleaveOdd(first, second);
    __builtin_memcpy(a.out + begin, &lows, sizeof(lows));
    __builtin_memcpy(a.out + begin + 2 * kLanes, &highs, sizeof(highs));
  }
}

template <int W, class Wide>
FormatKernels FormatKernelsOf() {
  return {.block_amax = BlockAmax<W, Wide>,
          .mxfp4_scales = Mxfp4Scales<W>,
          .nvfp4_scales = Nvfp4Scales<W>,
          .fp8_scales = Fp8Scales<W>,
          .apply = Apply<W, Wide>,
          .words = PhiloxWords<Wide>};
}

}  // namespace
}  // namespace temper::numerics::kernels
