#include "numerics/cuda/launch_checks.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "numerics/cuda/error_block.h"
#include "numerics/cuda/thread_block.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::numerics::cuda {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 34;
constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max();

absl::Status RefuseNull(const void* pointer, std::string_view field) {
  if (pointer != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(base::Cat(field, " is null"));
}

absl::Status CheckShape(int64_t rows, int64_t cols, int64_t blocks_per_row) {
  if (rows <= 0 || cols <= 0) {
    return absl::InvalidArgumentError(base::Cat("a matrix of ", rows, " x ", cols, " elements"));
  }
  if (cols > kMaxElements) {
    return absl::InvalidArgumentError(
        base::Cat("cols ", cols, ": a row's elements are numbered to 2^34"));
  }
  if (rows > kMaxBlocks / blocks_per_row) {
    return absl::ResourceExhaustedError(
        base::Cat(rows, " rows of ", blocks_per_row, " blocks: a launch has at most ", kMaxBlocks));
  }
  return absl::OkStatus();
}

absl::Status CheckStride(int64_t rows, int64_t cols, int64_t stride, std::string_view field) {
  if (rows == 1 || stride >= cols) return absl::OkStatus();
  return absl::InvalidArgumentError(
      base::Cat(field, " ", stride, " is less than the ", cols, " columns"));
}

// A block writes its row while others still read theirs.
absl::Status CheckInPlace(const float* from, int64_t from_stride, const float* to,
                          int64_t to_stride) {
  if (from != to || from_stride == to_stride) return absl::OkStatus();
  return absl::InvalidArgumentError(
      base::Cat("in place with strides of ", from_stride, " and ", to_stride));
}

absl::StatusOr<QuantizeFormat> FormatOf(NumberFormat format) {
  switch (format) {
    case NumberFormat::kMxfp4:
      return QuantizeFormat::kMxfp4;
    case NumberFormat::kNvfp4:
      return QuantizeFormat::kNvfp4;
    case NumberFormat::kFp8:
      return QuantizeFormat::kFp8;
  }
  return absl::InvalidArgumentError("no such format");
}

QuantizeSpan SpanOf(ScaleSpan span) {
  return span == ScaleSpan::kTensor ? QuantizeSpan::kTensor
         : span == ScaleSpan::kRow  ? QuantizeSpan::kRow
                                    : QuantizeSpan::kBlock;
}

ExactSum SumOf(const WideSum& wide) {
  // FromWords saturates at the same bound.
  return wide.above != 0 ? ExactSum::FromWords(~uint64_t{0}, 0)
                         : ExactSum::FromWords(wide.high, wide.low);
}

}  // namespace

absl::StatusOr<ErrorParameters> MakeErrorParameters(const OperatorError& error) {
  TEMPER_RETURN_IF_ERROR(CheckStrength(error.type, error.strength));
  if (error.random() && error.draw != GaussianDraw::kExact) {
    return absl::UnimplementedError("fast draws are made on the CPU alone");
  }
  ErrorParameters parameters = {.strength = error.strength};
  if (error.type == ErrorType::kSpike) {
    // Words 0 .. p 2^32 - 1 strike, as in numerics/operator_error.cc.
    const double words = std::round(error.spike_probability * 0x1p32);
    parameters.last_struck = static_cast<uint32_t>(std::clamp(words, 1.0, 0x1p32) - 1.0);
  }
  return parameters;
}

absl::StatusOr<QuantizeArguments> MakeQuantizeArguments(const FormatSpec& spec, Operand operand) {
  TEMPER_RETURN_IF_ERROR(CheckFormat(spec, operand));
  if (spec.block_2d) {
    return absl::UnimplementedError("block_2d is quantized on the CPU alone");
  }
  QuantizeArguments arguments;
  TEMPER_ASSIGN_OR_RETURN(arguments.format, FormatOf(spec.format));
  arguments.span = SpanOf(ResolvedSpan(spec, operand));
  arguments.stochastic = spec.stochastic_rounding;
  return arguments;
}

absl::Status CheckError(const ErrorArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckShape(a.rows, a.cols, TilesOf(a.cols)));
  TEMPER_RETURN_IF_ERROR(CheckStride(a.rows, a.cols, a.row_stride, "row_stride"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.y, "y"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.row_keys, "row_keys"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.parameters, "parameters"));
  if (static_cast<int>(a.type) >= kErrorTypeCount) {
    return absl::InvalidArgumentError(base::Cat("error type ", static_cast<int>(a.type)));
  }
  if (ReadsRowMaximum(a.type)) return RefuseNull(a.row_maxima, "row_maxima");
  return absl::OkStatus();
}

absl::Status CheckNorm(const NormArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckShape(a.rows, a.cols, 1));
  TEMPER_RETURN_IF_ERROR(CheckStride(a.rows, a.cols, a.x_stride, "x_stride"));
  TEMPER_RETURN_IF_ERROR(CheckStride(a.rows, a.cols, a.y_stride, "y_stride"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.x, "x"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.y, "y"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.gamma, "gamma"));
  TEMPER_RETURN_IF_ERROR(CheckInPlace(a.x, a.x_stride, a.y, a.y_stride));
  if (!(a.eps > 0.0f)) {
    return absl::InvalidArgumentError(base::Cat("eps ", a.eps, " is not above 0"));
  }
  if (a.draw_stride != 0 && a.draw_stride != 1) {
    return absl::InvalidArgumentError(base::Cat("draw_stride ", a.draw_stride, " is not 0 or 1"));
  }
  return absl::OkStatus();
}

absl::Status CheckQuantize(const QuantizeArguments& a) {
  TEMPER_RETURN_IF_ERROR(CheckShape(a.rows, a.cols, TilesOf(a.cols)));
  TEMPER_RETURN_IF_ERROR(CheckStride(a.rows, a.cols, a.x_stride, "x_stride"));
  TEMPER_RETURN_IF_ERROR(CheckStride(a.rows, a.cols, a.out_stride, "out_stride"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.x, "x"));
  TEMPER_RETURN_IF_ERROR(RefuseNull(a.out, "out"));
  TEMPER_RETURN_IF_ERROR(CheckInPlace(a.x, a.x_stride, a.out, a.out_stride));
  if (a.span == QuantizeSpan::kTensor) {
    TEMPER_RETURN_IF_ERROR(RefuseNull(a.tensor_amax, "tensor_amax"));
  }
  if (!a.stochastic) return absl::OkStatus();
  if (a.element_stride < 0 || a.key_stride < 0 ||
      (a.element_stride > 0 && a.rows - 1 > (kMaxElements - a.cols) / a.element_stride)) {
    return absl::InvalidArgumentError(base::Cat("element_stride ", a.element_stride,
                                                ", key_stride ", a.key_stride,
                                                ": elements are numbered to 2^34"));
  }
  return RefuseNull(a.row_keys, "row_keys");
}

ErrorStats CountsOfRows(std::span<const RowCounts> rows) {
  ErrorStats stats;
  for (const RowCounts& row : rows) {
    stats.calls = std::max<uint64_t>(stats.calls, row.calls);
    stats.elements += row.elements;
    stats.changed += row.changed;
    stats.non_finite += row.non_finite;
    stats.sum_sq_error.Merge(SumOf(row.sum_sq_error));
    stats.sum_sq_value.Merge(SumOf(row.sum_sq_value));
  }
  return stats;
}

}  // namespace temper::numerics::cuda
