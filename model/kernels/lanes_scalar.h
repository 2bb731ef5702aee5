#pragma once

// Sixteen floats on any machine. Lanes is the vector the bodies beside this header are written in;
// lanes_avx2.h and lanes_avx512.h are the same thing in wider instructions.

#include <cstdint>

namespace temper::model::kernels {
namespace {

struct Lanes {
  static constexpr int kGradRows = 4;   // tile of the weight gradient: rows of it
  static constexpr int kGradLanes = 1;  // and lanes of its columns

  float v[16];

  static Lanes Zero() { return Broadcast(0.0f); }
  static Lanes Broadcast(float x) {
    Lanes r;
    for (float& e : r.v) e = x;
    return r;
  }
  static Lanes Load(const float* p) {
    Lanes r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
  }
  // The first n floats, zeros behind.
  static Lanes LoadPart(const float* p, int64_t n) {
    Lanes r = Zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  void Store(float* p) const {
    for (int i = 0; i < 16; ++i) p[i] = v[i];
  }
  void StorePart(float* p, int64_t n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
  static Lanes Fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    Lanes r;
    for (int i = 0; i < 16; ++i) r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
    return r;
  }
  // Max and Min: the second operand where one is NaN.
  static Lanes Max(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return r;
  }
  static Lanes Min(const Lanes& a, const Lanes& b) {
    Lanes r;
    for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return r;
  }
  // 0 where condition < limit, else x (also where condition is NaN).
  static Lanes ZeroBelow(const Lanes& condition, float limit, const Lanes& x) {
    Lanes r;
    for (int i = 0; i < 16; ++i) r.v[i] = condition.v[i] < limit ? 0.0f : x.v[i];
    return r;
  }
  // x * 2^n, where the low bits of the float n_bits hold n.
  static Lanes ScaleByPower(const Lanes& x, const Lanes& n_bits) {
    Lanes r;
    for (int i = 0; i < 16; ++i) {
      uint32_t a, b;
      __builtin_memcpy(&a, &x.v[i], 4);
      __builtin_memcpy(&b, &n_bits.v[i], 4);
      a += b << 23;
      __builtin_memcpy(&r.v[i], &a, 4);
    }
    return r;
  }
  float Sum() const {
    float t[8];
    for (int i = 0; i < 8; ++i) t[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; ++i) t[i] = t[i] + t[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
  }
  float Largest() const {
    float r = v[0];
    for (int i = 1; i < 16; ++i) r = v[i] > r ? v[i] : r;
    return r;
  }
};

inline Lanes operator+(const Lanes& a, const Lanes& b) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] + b.v[i];
  return r;
}
inline Lanes operator-(const Lanes& a, const Lanes& b) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] - b.v[i];
  return r;
}
inline Lanes operator*(const Lanes& a, const Lanes& b) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] * b.v[i];
  return r;
}
inline Lanes operator/(const Lanes& a, const Lanes& b) {
  Lanes r;
  for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] / b.v[i];
  return r;
}

}  // namespace
}  // namespace temper::model::kernels
