#pragma once

// The ways in which a perturbed operator errs. No other includes: the kernels read this too.

#include <cstdint>

namespace temper::numerics {

// x: a number before the error, x': after it, n ~ N(0, 1), s, t, m, p: parameters, max: of |x| over
// the row. Numbers enter fingerprints: never renumbered. Formulas: numerics/operator_error.h.
enum class ErrorType : uint8_t {
  kRelativeGaussian = 0,  // x' = x (1 + s n)
  kAbsoluteGaussian = 1,  // x' = x + s n
  kSystematicBias = 2,    // x' = x + s sign(x), or x (1 + s)
  kTruncation = 3,        // x' = s trunc(x / s)
  kDeadzone = 4,          // x' = 0 where |x| < t max
  kSaturation = 5,        // |x'| at most (1 - m) max
  kSpike = 6,             // with probability p: x' = x + m max n
};
inline constexpr int kErrorTypeCount = 7;

// How normals are made of Philox words: numerics/gaussian.h. Part of the noise id.
enum class GaussianDraw : uint8_t {
  kExact,  // 32-bit uniforms, |n| <= 6.66
  kFast,   // 16-bit uniforms, |n| <= 4.86, half the Philox calls
};

}  // namespace temper::numerics
