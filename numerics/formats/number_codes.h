#pragma once

// The element codes of the 4- and 8-bit floating-point formats, one value at a time: the reference
// that the kernels are held to. All functions are pure and thread-safe.
//
//   E2M1    s ee m      bias 1; +-{0, 0.5, 1, 1.5, 2, 3, 4, 6}; no infinity, no NaN (OCP
//   MX 1.0, 5.3.3) E4M3FN  s eeee mmm  bias 7; subnormals k * 2^-9, normals 2^-6 .. 448; no
//   infinity, NaN is
//                       s.1111.111 (Micikevicius et al. 2022, table 1)

#include <bit>
#include <cstdint>

namespace temper::numerics {

inline constexpr float kE2M1Max = 6.0f;
inline constexpr float kE4M3Max = 448.0f;

// The value of a code; bits above the low four are ignored.
constexpr float DecodeE2M1(uint8_t code) {
  constexpr float kMagnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  const float magnitude = kMagnitudes[code & 7];
  return (code & 8) != 0 ? -magnitude : magnitude;
}

// The nearest code, ties to the even one; beyond 6 the code of 6. The sign of zero is kept. NaN has
// no code: it becomes that of 6 with its sign (its block is NaN anyway).
constexpr uint8_t EncodeE2M1(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const float a = std::bit_cast<float>(bits & 0x7fffffffu);
  // Between two grid points the half-way value belongs to the one with the even code.
  const int code = !(a <= 5.0f)    ? 7
                   : !(a < 3.5f)   ? 6
                   : !(a <= 2.5f)  ? 5
                   : !(a < 1.75f)  ? 4
                   : !(a <= 1.25f) ? 3
                   : !(a < 0.75f)  ? 2
                   : !(a <= 0.25f) ? 1
                                   : 0;
  return static_cast<uint8_t>(((bits >> 31) << 3) | static_cast<uint32_t>(code));
}

// The value of a code; 0x7f and 0xff are NaN.
constexpr float DecodeE4M3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude < 8) {  // subnormal
    const float value = static_cast<float>(magnitude) * 0x1p-9f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + ((127u - 7u) << 23)));
}

// The nearest code, ties to the even one; beyond 448, infinity too, the code of 448. NaN -> NaN.
constexpr uint8_t EncodeE4M3(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (a >= std::bit_cast<uint32_t>(kE4M3Max)) return static_cast<uint8_t>(sign | 0x7eu);
  // The significand in units of 2^-9, or of 2^-3 of the binade: drop `shift` bits, nearest even.
  const uint32_t exponent = a >> 23;
  const bool normal = exponent >= 121;  // 2^-6
  const uint32_t significand = (a & 0x7fffffu) | (exponent > 0 ? 0x800000u : 0u);
  const uint32_t shift = normal ? 20 : 20 + 121 - (exponent > 0 ? exponent : 1);
  if (shift > 25) return static_cast<uint8_t>(sign);
  const uint32_t kept = significand >> shift;
  const uint32_t rest = significand & ((1u << shift) - 1);
  const uint32_t half = 1u << (shift - 1);
  const uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1u) != 0) ? 1 : 0);
  // A normal's significand is 8 .. 16: 8 belongs to the exponent, and 16 carries into it.
  const uint32_t base = normal ? ((exponent - 121) << 3) : 0;
  return static_cast<uint8_t>(sign | (base + rounded));
}

}  // namespace temper::numerics
