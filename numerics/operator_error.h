#pragma once

// One hardware error of an operator: which, how much, and its application to rows.
//
//   type                 x'                              strength, range
//   relative_gaussian    x fl(1 + s n)                   s >= 0
//   absolute_gaussian    fma(s, n, x)                    s >= 0
//   systematic_bias      x + s sign(x), sign(0) = 0;     s >= 0
//                        with `relative` x fl(1 + s)
//   truncation           s trunc(x / s)                  s >= 0; |x / s| >= 2^23 has no fraction
//   deadzone             0 where |x| < fl(t max), else x 0 <= t < 1
//   saturation           clamp(x, +-fl(fl(1 - m) max))   0 <= m <= 1
//   spike                fma(fl(m max), n, x) where the  m >= 0, and 0 < p <= 1
//                        element's word < p 2^32, else x
// in float32. max is the largest finite |x| of the row: one token of an activation or of g_x, one
// output feature of g_W. It never looks beyond the row, so a row does not depend on its batch.
// Strength 0 is no error, for every type. Infinite and NaN values stay as they are and are counted.
//
// n: numerics/gaussian.h, keyed alike for every type, drawn as `draw` says. A spike's word is word
// (element mod 4) of Philox under the same key and counter, but with bit 3 of the site's tensor
// number set, which no TensorRole has: docs/numerics.md, "Other errors".
//
// All functions are pure (but for what they write through their pointers) and thread-safe; the last
// argument changes no result.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "numerics/error_stats.h"
#include "numerics/error_type.h"
#include "numerics/row_key.h"
#include "numerics/simd_path.h"

namespace temper::numerics {

// A value; no error by default.
struct OperatorError {
  ErrorType type = ErrorType::kRelativeGaussian;
  float strength = 0.0f;                     // s, t or m; 0: no error
  bool relative = false;                     // of systematic_bias
  double spike_probability = 0.0;            // p of spike
  GaussianDraw draw = GaussianDraw::kExact;  // of n

  bool acts() const { return strength > 0.0f; }
  // True where x' depends on a draw and not on x and its row alone.
  bool random() const {
    return type == ErrorType::kRelativeGaussian || type == ErrorType::kAbsoluteGaussian ||
           type == ErrorType::kSpike;
  }
  // True where x' = D x with a D that does not depend on x: D is then dx'/dx, and the errors of
  // two addends are the error of their sum.
  bool linear() const {
    return type == ErrorType::kRelativeGaussian || (type == ErrorType::kSystematicBias && relative);
  }
};

// Names as in the configuration: "relative_gaussian", ...
std::string_view ErrorTypeName(ErrorType type);
std::optional<ErrorType> ErrorTypeFromName(std::string_view name);
// Which parameter the strength of a type is, as in the configuration: "error_scale" (s),
// "deadzone_threshold" (t) or "fault_magnitude" (m).
std::string_view StrengthName(ErrorType type);
// InvalidArgument, with the parameter's name, where `strength` is not finite or out of the type's
// range. 0 is in all of them.
absl::Status CheckStrength(ErrorType type, double strength);
// "spike 0.1 (probability 0.001)", for logs.
std::string DescribeError(const OperatorError& error);

// Perturbs rows of an activation or of g_x in place. y: [rows, cols] floats, row r at
// y + r * row_stride. row_keys: one per row. site: numerics::Site. stats: may be null; the call is
// added to it, also where the strength is 0.
void ApplyError(const OperatorError& error, float* y, int64_t rows, int64_t cols,
                int64_t row_stride, std::span<const RowKey> row_keys, uint32_t site,
                ErrorStats* stats, SimdPath path = BestSimdPath());

// Perturbs a whole weight or its gradient in place. w: [out, in] contiguous; a row is an output
// feature; element = flat index, position = lane = 0. out * in <= 2^34.
void ApplyErrorToWeight(const OperatorError& error, float* w, int64_t out, int64_t in, uint64_t key,
                        uint32_t site, ErrorStats* stats, SimdPath path = BestSimdPath());

}  // namespace temper::numerics
