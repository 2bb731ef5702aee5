#pragma once

// The number formats of the simulated hardware, and what may be asked of them. docs/numerics.md,
// "Number formats", has the formulas.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace temper::numerics {

enum class NumberFormat {
  kMxfp4,  // E2M1 in blocks of 32 with a power of two as scale
  kNvfp4,  // E2M1 in blocks of 16 with an E4M3 scale under one float32 scale per tensor or row
  kFp8,    // E4M3FN under a float32 scale
};

// "mxfp4", "nvfp4", "fp8".
std::string_view NumberFormatName(NumberFormat format);
std::optional<NumberFormat> NumberFormatFromName(std::string_view name);

// What the float32 scale is taken over. MXFP4 has none of its own: kBlock.
enum class ScaleSpan {
  kTensor,  // the whole logical weight
  kRow,     // one token of an activation, one output feature of a weight
  kBlock,   // FP8: 1 x 128 values of a row
};

std::string_view ScaleSpanName(ScaleSpan span);
std::optional<ScaleSpan> ScaleSpanFromName(std::string_view name);

// What is quantized. A weight is taken as a whole, once per version. An activation is taken token
// by token: nothing of a row may depend on what else is in the call.
enum class Operand { kWeight, kActivation };

struct FormatSpec {
  NumberFormat format = NumberFormat::kMxfp4;
  // Absent: MXFP4 block; NVFP4 and FP8 the tensor for weights, the row for activations.
  std::optional<ScaleSpan> scale_span;
  int64_t block_size = 0;            // 0: the format's own (MXFP4 32, NVFP4 16, FP8 by block 128)
  bool block_2d = false;             // MXFP4 weights: one scale per 32 x 32 tile
  bool stochastic_rounding = false;  // E[Q(x)] = x inside the range, by keyed draws
};

// "mxfp4", "mxfp4 (32 x 32 tiles, stochastic rounding)".
std::string DescribeFormat(const FormatSpec& spec);

// The format's block size along a row: 32, 16, 128.
int64_t BlockSize(NumberFormat format);
// The largest magnitude of an element before scaling: 6, 6, 448.
float ElementMax(NumberFormat format);
// The span in force.
ScaleSpan ResolvedSpan(const FormatSpec& spec, Operand operand);

// InvalidArgument, with the reason, for a combination that does not exist: a block size that is not
// the format's; block_2d on another format or on activations; a scale over a tensor on activations
// (it would depend on the other rows of the call); a span that the format does not have.
absl::Status CheckFormat(const FormatSpec& spec, Operand operand);

// InvalidArgument if a tensor of this shape cannot be quantized so: block_2d on a vector, and
// anything but one or two dimensions.
absl::Status CheckShape(const FormatSpec& spec, std::span<const int64_t> shape);

}  // namespace temper::numerics
