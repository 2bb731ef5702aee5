#pragma once

// The keyed draws of numerics/gaussian.h for one counter, four elements at a time, on host and
// device: the same Philox, the same polynomials in the same order of fused multiply-adds as
// numerics/kernels/gaussian_body.h, whose vectors nvcc cannot compile. A test holds the two
// together bit for bit.

#include <cstdint>

#include "numerics/kernels/host_device.h"
#include "numerics/row_key.h"

namespace temper::numerics::cuda {
namespace {

// Numbers of four neighbouring elements.
struct FourWords {
  uint32_t w[4];
};
struct FourNormals {
  float n[4];
};

// The words of elements 4 * counter .. 4 * counter + 3: Philox4x32-10 of counter words (counter,
// row.position, site, row.lane) under row.key.
TEMPER_HOST_DEVICE inline FourWords KeyedWords(const RowKey& row, uint32_t site, uint32_t counter) {
  uint32_t c0 = counter, c1 = row.position, c2 = site, c3 = row.lane;
  uint32_t k0 = static_cast<uint32_t>(row.key), k1 = static_cast<uint32_t>(row.key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Two words to two normals. Coefficients and their errors: docs/numerics.md, "Gaussians".
TEMPER_HOST_DEVICE inline void BoxMuller(uint32_t w0, uint32_t w1, float* first, float* second) {
  using namespace kernels;
  const float u1 = Fma(static_cast<float>(static_cast<int32_t>(w0 >> 1)), 0x1p-31f, 0x1p-32f);
  const float u2 = Mul(static_cast<float>(static_cast<int32_t>(w1 >> 1)), 0x1p-31f);

  // u1 = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).
  constexpr uint32_t kSqrtHalfBits = 0x3f3504f3u;
  const uint32_t shifted = Bits(u1) - kSqrtHalfBits;
  const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float f = Sub(FromBits((shifted & 0x7fffffu) + kSqrtHalfBits), 1.0f);
  float p = Fma(-0x1.65c766p-3f, f, 0x1.250494p-2f);
  p = Fma(p, f, -0x1.318524p-2f);
  p = Fma(p, f, 0x1.535d32p-2f);
  p = Fma(p, f, -0x1.98d2c0p-2f);
  p = Fma(p, f, 0x1.00049ap-1f);
  p = Fma(p, f, -0x1.5556f4p-1f);
  p = Fma(p, f, 0x1.fffffap-1f);
  const float log_m = Fma(Mul(f, f), p, Mul(f, -2.0f));
  const float radius = Sqrt(Fma(e, -0x1.62e430p+0f, log_m));

  // u2 = q / 4 + r, q the nearest integer, r exact.
  constexpr float kRound = 0x1.8p+23f;
  const float rounded = Fma(u2, 4.0f, kRound);
  const uint32_t q = Bits(rounded);
  const float r = Fma(Sub(rounded, kRound), -0.25f, u2);
  const float z = Mul(r, r);
  float s = Fma(-0x1.2d9302p+6f, z, 0x1.465e92p+6f);
  s = Fma(s, z, -0x1.4abbbap+5f);
  s = Fma(s, z, 0x1.921fb6p+2f);
  s = Mul(s, r);
  float c = Fma(-0x1.4e844ap+6f, z, 0x1.03b090p+6f);
  c = Fma(c, z, -0x1.3bd39cp+4f);
  c = Fma(c, z, 1.0f);

  // Odd quadrants swap the two; cos is negative in quadrants 1 and 2, sin in 2 and 3.
  const bool odd = (q & 1u) != 0;
  const float cosine = odd ? s : c, sine = odd ? c : s;
  *first = FromBits(Bits(Mul(radius, cosine)) ^ (((q + 1u) & 2u) << 30));
  *second = FromBits(Bits(Mul(radius, sine)) ^ ((q & 2u) << 30));
}

// The normals of elements first .. first + 3, first a multiple of 4: the only place where a kernel
// gets normals from.
TEMPER_HOST_DEVICE inline FourNormals KeyedNormals(const RowKey& row, uint32_t site,
                                                   int64_t first) {
  const FourWords words = KeyedWords(row, site, static_cast<uint32_t>(first / 4));
  FourNormals normals;
  BoxMuller(words.w[0], words.w[1], &normals.n[0], &normals.n[1]);
  BoxMuller(words.w[2], words.w[3], &normals.n[2], &normals.n[3]);
  return normals;
}

}  // namespace
}  // namespace temper::numerics::cuda
