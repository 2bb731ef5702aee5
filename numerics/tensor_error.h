#pragma once

// One error of a whole tensor: a number format's rounding, or an error of
// numerics/operator_error.h. What `hw_error_injection` does to an operand or a result.

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "numerics/error_stats.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/formats/number_format.h"
#include "numerics/operator_error.h"
#include "numerics/row_key.h"

namespace temper::numerics {

// Immutable: thread-safe.
class TensorError final {
 public:
  // No error.
  TensorError() = default;
  // Errors: InvalidArgument as CheckFormat says of `operand`.
  static absl::StatusOr<TensorError> OfFormat(const FormatSpec& format, Operand operand);
  // error: parameters in range (CheckStrength).
  explicit TensorError(const OperatorError& error) : error_(error) {}

  bool acts() const { return quantizer_.has_value() || error_.acts(); }
  bool is_format() const { return quantizer_.has_value(); }
  // A format with stochastic rounding: its words are of a purpose of their own.
  bool rounds_stochastically() const {
    return quantizer_.has_value() && quantizer_->spec().stochastic_rounding;
  }
  // True where x' depends on a draw.
  bool draws() const {
    return quantizer_.has_value() ? rounds_stochastically() : error_.acts() && error_.random();
  }
  // The error where it is linear (OperatorError::linear), so that to multiply a gradient by D is to
  // apply it; else none, as D = 1: the gradient of formats and steps is straight-through.
  OperatorError GradientFactor() const {
    return !quantizer_.has_value() && error_.linear() ? error_ : OperatorError();
  }
  const OperatorError& error() const { return error_; }  // no error for a format

  // Rows of an activation or result, each by itself: x [rows, cols] to out, which may be x where
  // the error is no format. keys: one per row, read where it draws. Adds the call to `stats` (may
  // be null).
  void PerturbRows(const float* x, int64_t rows, int64_t cols, int64_t x_stride, float* out,
                   int64_t out_stride, std::span<const RowKey> keys, uint32_t site,
                   ErrorStats* stats) const;

  // A whole weight [out_features, in_features] to `out`, another buffer; element = flat index.
  // ResourceExhausted for stochastic rounding of 2^34 values or more.
  absl::Status PerturbWeight(const float* w, int64_t out_features, int64_t in_features,
                             uint64_t key, uint32_t site, float* out, ErrorStats* stats) const;

  // "mxfp4", "mxfp4 (32 x 32 tiles, stochastic rounding)", "spike 0.1 (probability 0.001)".
  std::string Describe() const;

 private:
  OperatorError error_;
  std::optional<FakeQuantizer> quantizer_;
};

}  // namespace temper::numerics
