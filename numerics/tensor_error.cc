#include "numerics/tensor_error.h"

#include <algorithm>

#include "services/base/check.h"

namespace temper::numerics {

absl::StatusOr<TensorError> TensorError::OfFormat(const FormatSpec& format, Operand operand) {
  absl::StatusOr<FakeQuantizer> quantizer = FakeQuantizer::Create(format, operand);
  if (!quantizer.ok()) return quantizer.status();
  TensorError error;
  error.quantizer_ = *std::move(quantizer);
  return error;
}

void TensorError::PerturbRows(const float* x, int64_t rows, int64_t cols, int64_t x_stride,
                              float* out, int64_t out_stride, std::span<const RowKey> keys,
                              uint32_t site, ErrorStats* stats) const {
  if (!quantizer_.has_value()) {
    for (int64_t r = 0; r < rows && x != out; ++r) {
      std::copy_n(x + r * x_stride, cols, out + r * out_stride);
    }
    ApplyError(error_, out, rows, cols, out_stride, keys, site, stats);
    return;
  }
  TEMPER_CHECK(x != out, "the values before rounding are counted against");
  quantizer_->QuantizeRows({.x = x,
                            .out = out,
                            .rows = rows,
                            .cols = cols,
                            .x_stride = x_stride,
                            .out_stride = out_stride},
                           keys, site);
  if (stats == nullptr || rows <= 0 || cols <= 0) return;
  ++stats->calls;
  for (int64_t r = 0; r < rows; ++r) {
    CountChanges({x + r * x_stride, static_cast<size_t>(cols)},
                 {out + r * out_stride, static_cast<size_t>(cols)}, stats);
  }
}

absl::Status TensorError::PerturbWeight(const float* w, int64_t out_features, int64_t in_features,
                                        uint64_t key, uint32_t site, float* out,
                                        ErrorStats* stats) const {
  const int64_t count = out_features * in_features;
  if (!quantizer_.has_value()) {
    std::copy_n(w, count, out);
    ApplyErrorToWeight(error_, out, out_features, in_features, key, site, stats);
    return absl::OkStatus();
  }
  const int64_t shape[] = {out_features, in_features};
  const absl::Status status = quantizer_->QuantizeWeight(shape, w, out, nullptr, key, site);
  if (!status.ok()) return status;
  if (stats != nullptr && count > 0) {
    ++stats->calls;
    CountChanges({w, static_cast<size_t>(count)}, {out, static_cast<size_t>(count)}, stats);
  }
  return absl::OkStatus();
}

std::string TensorError::Describe() const {
  return quantizer_.has_value() ? DescribeFormat(quantizer_->spec()) : DescribeError(error_);
}

}  // namespace temper::numerics
