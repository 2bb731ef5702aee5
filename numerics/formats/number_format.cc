#include "numerics/formats/number_format.h"

#include <string>

#include "numerics/formats/number_codes.h"
#include "services/base/text.h"

namespace temper::numerics {
namespace {

constexpr NumberFormat kFormats[] = {NumberFormat::kMxfp4, NumberFormat::kNvfp4,
                                     NumberFormat::kFp8};
constexpr ScaleSpan kSpans[] = {ScaleSpan::kTensor, ScaleSpan::kRow, ScaleSpan::kBlock};

bool HasSpan(NumberFormat format, ScaleSpan span) {
  switch (format) {
    case NumberFormat::kMxfp4:
      return span == ScaleSpan::kBlock;
    case NumberFormat::kNvfp4:
      return span != ScaleSpan::kBlock;
    case NumberFormat::kFp8:
      return true;
  }
  return false;
}

}  // namespace

std::string_view NumberFormatName(NumberFormat format) {
  switch (format) {
    case NumberFormat::kMxfp4:
      return "mxfp4";
    case NumberFormat::kNvfp4:
      return "nvfp4";
    case NumberFormat::kFp8:
      return "fp8";
  }
  return "unknown";
}

std::optional<NumberFormat> NumberFormatFromName(std::string_view name) {
  for (const NumberFormat format : kFormats) {
    if (NumberFormatName(format) == name) return format;
  }
  return std::nullopt;
}

std::string_view ScaleSpanName(ScaleSpan span) {
  switch (span) {
    case ScaleSpan::kTensor:
      return "tensor";
    case ScaleSpan::kRow:
      return "row";
    case ScaleSpan::kBlock:
      return "block";
  }
  return "unknown";
}

std::optional<ScaleSpan> ScaleSpanFromName(std::string_view name) {
  for (const ScaleSpan span : kSpans) {
    if (ScaleSpanName(span) == name) return span;
  }
  return std::nullopt;
}

std::string DescribeFormat(const FormatSpec& spec) {
  std::string text(NumberFormatName(spec.format));
  if (spec.block_2d) text += " (32 x 32 tiles";
  if (spec.stochastic_rounding) text += spec.block_2d ? ", " : " (";
  if (spec.stochastic_rounding) text += "stochastic rounding";
  return spec.block_2d || spec.stochastic_rounding ? text + ")" : text;
}

int64_t BlockSize(NumberFormat format) {
  switch (format) {
    case NumberFormat::kMxfp4:
      return 32;
    case NumberFormat::kNvfp4:
      return 16;
    case NumberFormat::kFp8:
      return 128;
  }
  return 0;
}

float ElementMax(NumberFormat format) { return format == NumberFormat::kFp8 ? kE4M3Max : kE2M1Max; }

ScaleSpan ResolvedSpan(const FormatSpec& spec, Operand operand) {
  if (spec.scale_span.has_value()) return *spec.scale_span;
  if (spec.format == NumberFormat::kMxfp4) return ScaleSpan::kBlock;
  return operand == Operand::kWeight ? ScaleSpan::kTensor : ScaleSpan::kRow;
}

absl::Status CheckFormat(const FormatSpec& spec, Operand operand) {
  const std::string_view name = NumberFormatName(spec.format);
  if (spec.block_size != 0 && spec.block_size != BlockSize(spec.format)) {
    return absl::InvalidArgumentError(base::Cat("block size ", spec.block_size, ": ", name,
                                                " has blocks of ", BlockSize(spec.format)));
  }
  if (spec.block_2d && spec.format != NumberFormat::kMxfp4) {
    return absl::InvalidArgumentError(
        base::Cat("block_2d: mxfp4 has tiles of 32 x 32, ", name, " has none"));
  }
  if (spec.block_2d && operand == Operand::kActivation) {
    return absl::InvalidArgumentError(
        "block_2d is for weights: a tile of an activation would mix tokens");
  }
  const ScaleSpan span = ResolvedSpan(spec, operand);
  if (!HasSpan(spec.format, span)) {
    return absl::InvalidArgumentError(
        base::Cat("a scale over the ", ScaleSpanName(span), ": ", name,
                  spec.format == NumberFormat::kMxfp4 ? " is scaled by block"
                                                      : " is scaled over the tensor or the row"));
  }
  if (operand == Operand::kActivation && span == ScaleSpan::kTensor) {
    return absl::InvalidArgumentError(
        "a scale over the tensor is for weights: a row of an activation would depend on the other "
        "rows of the call");
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const FormatSpec& spec, std::span<const int64_t> shape) {
  if (shape.empty() || shape.size() > 2) {
    return absl::InvalidArgumentError(
        base::Cat("a tensor of ", shape.size(), " dimensions; one or two can be quantized"));
  }
  if (spec.block_2d && shape.size() == 1) {
    return absl::InvalidArgumentError("block_2d on a vector: a tile needs two dimensions");
  }
  return absl::OkStatus();
}

}  // namespace temper::numerics
