#include "numerics/formats/fake_quantize.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "numerics/kernels/format_kernels.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

using kernels::FormatKernels;
using kernels::kInfinityBits;
using kernels::kScalePadding;

// Columns taken at a time, a multiple of every block size: magnitudes, scales and the values
// themselves stay in the first cache between the passes.
constexpr int64_t kStretch = 2048;
constexpr int64_t kSmallestBlock = 16;
constexpr int64_t kTileRows = 32;
constexpr int64_t kMaxElements = int64_t{1} << 34;  // element / 4 is a 32-bit counter
// From here on a result cannot stay in the caches: reading its lines in before writing them, as
// ordinary stores do, would cost a third of the time.
constexpr int64_t kStreamBytes = int64_t{32} << 20;
constexpr float kNvfp4TensorMax = 448.0f * 6.0f;

FormatKernels Select(SimdPath path) {
  switch (path) {
    case SimdPath::kAvx512:
      return kernels::FormatKernelsAvx512();
    case SimdPath::kAvx2:
      return kernels::FormatKernelsAvx2();
    case SimdPath::kScalar:
      break;
  }
  return kernels::FormatKernelsScalar();
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Magnitudes and scales of the blocks of one stretch, in whole vectors.
struct StretchScales {
  alignas(64) std::array<int32_t, kStretch / kSmallestBlock> amax;
  alignas(64) std::array<float, kStretch / kSmallestBlock> scale;
  alignas(64) std::array<float, kStretch / kSmallestBlock> inverse;
};
static_assert(kStretch / kSmallestBlock % kScalePadding == 0);

float TensorScale(const Amax& amax) {
  const float scale = amax.finite / kNvfp4TensorMax;
  return scale == 0.0f ? 1.0f : scale;
}

// One word per value of a stretch, from a whole counter to a whole vector.
using WordsBuffer = std::array<uint32_t, kStretch + 2 * kernels::kWordsPadding>;

// Rounding words of elements first .. first + count - 1 of a row, in `buffer`.
const uint32_t* DrawWords(const FormatKernels& kernels, const RowKey& row, uint32_t site,
                          int64_t first, int64_t count, WordsBuffer* buffer) {
  const int64_t skipped = first % 4;
  kernels.words(
      {.out = buffer->data(),
       .count = CeilDivide(skipped + count, kernels::kWordsPadding) * kernels::kWordsPadding,
       .first_counter = static_cast<uint32_t>(first / 4),
       .site = site,
       .row = row});
  return buffer->data() + skipped;
}

bool Streams(const MatrixRows& m) {
  return m.out != m.x && m.rows * m.cols * static_cast<int64_t>(sizeof(float)) >= kStreamBytes;
}

// Largest magnitude of a long run.
Amax AmaxOfRun(const FormatKernels& kernels, const float* x, int64_t count) {
  constexpr int64_t kPart = int64_t{1} << 16;
  Amax amax;
  for (int64_t begin = 0; begin < count; begin += kPart) {
    const int64_t here = std::min(kPart, count - begin);
    int32_t bits = 0;
    kernels.block_amax({.x = x + begin, .count = here, .block = here, .amax = &bits});
    if (bits < kInfinityBits) {
      amax.finite = std::max(amax.finite, std::bit_cast<float>(bits));
      continue;
    }
    amax.non_finite = true;
    for (int64_t i = begin; i < begin + here; ++i) {
      if (std::isfinite(x[i])) amax.finite = std::max(amax.finite, std::abs(x[i]));
    }
  }
  return amax;
}

}  // namespace

void Amax::Merge(const Amax& other) {
  finite = std::max(finite, other.finite);
  non_finite = non_finite || other.non_finite;
}

// One row, and what is known of it.
struct FakeQuantizer::RowJob {
  const FormatKernels& kernels;
  const float* x = nullptr;
  float* out = nullptr;
  int64_t cols = 0;
  float* scales = nullptr;  // of this row, or null
  Amax amax;                // of the tensor or the row; read where the span is not the block
  RowKey key;               // of stochastic rounding
  uint32_t site = 0;
  int64_t first_element = 0;  // number of the row's first value under its key
  bool stream = false;
};

FakeQuantizer::FakeQuantizer(const FormatSpec& spec, Operand operand, SimdPath path)
    : spec_(spec), operand_(operand), span_(ResolvedSpan(spec, operand)), path_(path) {}

absl::StatusOr<FakeQuantizer> FakeQuantizer::Create(const FormatSpec& spec, Operand operand,
                                                    SimdPath path) {
  if (absl::Status status = CheckFormat(spec, operand); !status.ok()) return status;
  return FakeQuantizer(spec, operand, path);
}

bool FakeQuantizer::NeedsAmax() const { return span_ == ScaleSpan::kTensor; }

Amax FakeQuantizer::PartAmax(const float* x, int64_t rows, int64_t cols, int64_t stride) const {
  const FormatKernels kernels = Select(path_);
  if (stride == cols) return AmaxOfRun(kernels, x, rows * cols);
  Amax amax;
  for (int64_t r = 0; r < rows; ++r) amax.Merge(AmaxOfRun(kernels, x + r * stride, cols));
  return amax;
}

int64_t FakeQuantizer::ValuesPerScale(int64_t cols) const {
  if (spec_.format == NumberFormat::kFp8 && span_ != ScaleSpan::kBlock) {
    return std::max<int64_t>(cols, 1);
  }
  return BlockSize(spec_.format);
}

int64_t FakeQuantizer::ScalesPerRow(int64_t cols) const {
  return CeilDivide(cols, ValuesPerScale(cols));
}

void FakeQuantizer::QuantizeRow(const RowJob& job) const {
  StretchScales s;
  WordsBuffer words;
  const bool by_row = spec_.format == NumberFormat::kFp8 && span_ != ScaleSpan::kBlock;
  const int64_t block = by_row ? kStretch : ValuesPerScale(job.cols);
  kernels::ScaleArguments scales = {.amax = s.amax.data(),
                                    .blocks = 1,
                                    .tensor_scale = TensorScale(job.amax),
                                    .scale = s.scale.data(),
                                    .inverse = s.inverse.data()};
  if (by_row) {  // one scale for all stretches
    std::fill_n(s.amax.begin(), kScalePadding,
                job.amax.non_finite ? kInfinityBits : std::bit_cast<int32_t>(job.amax.finite));
    job.kernels.fp8_scales(scales);
    if (job.scales != nullptr) *job.scales = s.scale[0];
  }
  for (int64_t begin = 0; begin < job.cols; begin += kStretch) {
    const int64_t count = std::min(kStretch, job.cols - begin);
    if (!by_row) {
      scales.blocks = CeilDivide(count, block);
      job.kernels.block_amax(
          {.x = job.x + begin, .count = count, .block = block, .amax = s.amax.data()});
      // What the last vector reads beyond the blocks must be numbers.
      std::fill(s.amax.begin() + scales.blocks,
                s.amax.begin() + CeilDivide(scales.blocks, kScalePadding) * kScalePadding, 0);
      switch (spec_.format) {
        case NumberFormat::kMxfp4:
          job.kernels.mxfp4_scales(scales);
          break;
        case NumberFormat::kNvfp4:
          job.kernels.nvfp4_scales(scales);
          break;
        case NumberFormat::kFp8:
          job.kernels.fp8_scales(scales);
          break;
      }
      if (job.scales != nullptr) {
        std::copy_n(s.scale.begin(), scales.blocks, job.scales + begin / block);
      }
    }
    job.kernels.apply({.x = job.x + begin,
                       .out = job.out + begin,
                       .count = count,
                       .block = block,
                       .scale = s.scale.data(),
                       .inverse = spec_.format == NumberFormat::kMxfp4 ? s.inverse.data() : nullptr,
                       .words = spec_.stochastic_rounding
                                    ? DrawWords(job.kernels, job.key, job.site,
                                                job.first_element + begin, count, &words)
                                    : nullptr,
                       .e4m3 = spec_.format == NumberFormat::kFp8,
                       .stream = job.stream});
  }
}

// The rows of a tile are read from end to end, once for the magnitudes and once for the values:
// square pieces would be read across rows, which costs twice the time on wide matrices.
void FakeQuantizer::QuantizeTiles(const MatrixRows& m, const WeightPart& part) const {
  const FormatKernels kernels = Select(path_);
  const int64_t block = BlockSize(spec_.format);
  const int64_t blocks = CeilDivide(m.cols, block);
  const auto padded = static_cast<size_t>(CeilDivide(blocks, kScalePadding) * kScalePadding);
  std::vector<int32_t> amax(padded), row_amax(padded);
  std::vector<float> scale(padded), inverse(padded);
  WordsBuffer words;
  for (int64_t top = 0; top < m.rows; top += kTileRows) {
    const int64_t bottom = std::min(top + kTileRows, m.rows);
    std::fill(amax.begin(), amax.end(), 0);
    for (int64_t r = top; r < bottom; ++r) {
      kernels.block_amax(
          {.x = m.x + r * m.x_stride, .count = m.cols, .block = block, .amax = row_amax.data()});
      for (size_t b = 0; b < padded; ++b) amax[b] = std::max(amax[b], row_amax[b]);
    }
    kernels.mxfp4_scales(
        {.amax = amax.data(), .blocks = blocks, .scale = scale.data(), .inverse = inverse.data()});
    for (int64_t r = top; r < bottom; ++r) {
      if (m.scales != nullptr) std::copy_n(scale.begin(), blocks, m.scales + r * blocks);
      for (int64_t begin = 0; begin < m.cols; begin += kStretch) {
        const int64_t count = std::min(kStretch, m.cols - begin);
        const int64_t element = (part.first_row + r) * m.cols + begin;
        kernels.apply(
            {.x = m.x + r * m.x_stride + begin,
             .out = m.out + r * m.out_stride + begin,
             .count = count,
             .block = block,
             .scale = scale.data() + begin / block,
             .inverse = inverse.data() + begin / block,
             .words = spec_.stochastic_rounding
                          ? DrawWords(kernels, {.key = part.key}, part.site, element, count, &words)
                          : nullptr,
             .stream = Streams(m)});
      }
    }
  }
}

void FakeQuantizer::QuantizePart(const MatrixRows& m, const WeightPart& part) const {
  TEMPER_CHECK(operand_ == Operand::kWeight, "weights are quantized as weights");
  if (m.rows <= 0 || m.cols <= 0) return;
  if (spec_.block_2d) {
    TEMPER_CHECK(part.first_row % kTileRows == 0, "a part begins with a tile");
    QuantizeTiles(m, part);
    return;
  }
  const FormatKernels kernels = Select(path_);
  for (int64_t r = 0; r < m.rows; ++r) {
    RowJob job = JobOf(kernels, m, r);
    if (span_ != ScaleSpan::kRow) job.amax = part.amax;
    job.key = {.key = part.key};
    job.site = part.site;
    job.first_element = (part.first_row + r) * m.cols;
    job.stream = Streams(m);
    QuantizeRow(job);
  }
}

FakeQuantizer::RowJob FakeQuantizer::JobOf(const FormatKernels& kernels, const MatrixRows& m,
                                           int64_t r) const {
  const float* x = m.x + r * m.x_stride;
  return {.kernels = kernels,
          .x = x,
          .out = m.out + r * m.out_stride,
          .cols = m.cols,
          .scales = m.scales == nullptr ? nullptr : m.scales + r * ScalesPerRow(m.cols),
          .amax = span_ == ScaleSpan::kRow ? AmaxOfRun(kernels, x, m.cols) : Amax()};
}

absl::Status FakeQuantizer::QuantizeWeight(std::span<const int64_t> shape, const float* x,
                                           float* out, float* scales, uint64_t key,
                                           uint32_t site) const {
  if (absl::Status status = CheckShape(spec_, shape); !status.ok()) return status;
  const int64_t rows = shape.size() == 2 ? shape[0] : 1;
  const int64_t cols = shape.back();
  if (spec_.stochastic_rounding && rows * cols >= kMaxElements) {
    return absl::ResourceExhaustedError(
        "stochastic rounding numbers up to 2^34 values of a weight");
  }
  WeightPart part = {.key = key, .site = site};
  if (NeedsAmax()) part.amax = PartAmax(x, rows, cols, cols);
  QuantizePart({.x = x,
                .out = out,
                .rows = rows,
                .cols = cols,
                .x_stride = cols,
                .out_stride = cols,
                .scales = scales},
               part);
  return absl::OkStatus();
}

void FakeQuantizer::QuantizeRows(const MatrixRows& m, std::span<const RowKey> keys,
                                 uint32_t site) const {
  TEMPER_CHECK(operand_ == Operand::kActivation, "activations are quantized as activations");
  TEMPER_CHECK(!spec_.stochastic_rounding || static_cast<int64_t>(keys.size()) == m.rows,
               "one key per row");
  const FormatKernels kernels = Select(path_);
  for (int64_t r = 0; r < m.rows; ++r) {
    RowJob job = JobOf(kernels, m, r);
    if (spec_.stochastic_rounding) job.key = keys[static_cast<size_t>(r)];
    job.site = site;
    QuantizeRow(job);
  }
}

}  // namespace temper::numerics
