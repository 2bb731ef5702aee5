#pragma once

// Fake quantization: x^ = Q(x), a number format's values written back as float32.
//
//   block b of a row:  x^ = element(x / s_b) * s_b,  element: nearest grid point, ties to even
//   MXFP4  s_b = 2^clamp(floor(log2 amax_b) - 2, -127, 127)
//   NVFP4  s_b = S * E4M3(clamp((amax_b / 6) / S, 2^-9, 448)),  S = amax / 2688, 1 where that is 0
//   FP8    s_b = max(amax / 448, 2^-126), 1 where amax is 0
//
// Blocks lie along a row, the last one shorter. A block (the values that share s_b) with an
// infinity or NaN becomes NaN; zeros stay zeros and keep their sign. NVFP4's S leaves out
// non-finite values. Gradients: straight-through, the caller's matter. docs/numerics.md, "Number
// formats".
//
// All paths give the same bits, and so does any cut of a weight into parts: threads share out rows.
// Immutable: thread-safe.

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "numerics/formats/number_format.h"
#include "numerics/row_key.h"
#include "numerics/simd_path.h"

namespace temper::numerics {

namespace kernels {
struct FormatKernels;
}

// The largest magnitude of a tensor, or of a part of it.
struct Amax {
  float finite = 0.0f;      // of the values that are finite
  bool non_finite = false;  // there are others
  void Merge(const Amax& other);
};

// Rows to quantize. x and out: [rows, cols], a row's values side by side; out may be x.
struct MatrixRows {
  const float* x = nullptr;
  float* out = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  // The s_b that were used, or null: [rows, ScalesPerRow(cols)]; NaN for a NaN block.
  float* scales = nullptr;
};

class FakeQuantizer final {
 public:
  // Errors: InvalidArgument as CheckFormat says.
  static absl::StatusOr<FakeQuantizer> Create(const FormatSpec& spec, Operand operand,
                                              SimdPath path = BestSimdPath());

  // A whole weight of [out, in] features, or a vector as one row. key, site: of stochastic rounding
  // (base::StochasticRoundingKey of the version; Site(layer, op, kWeightOperand)), element = flat
  // index; unused without it. Errors: InvalidArgument as CheckShape says; ResourceExhausted for
  // stochastic rounding of 2^34 values or more.
  absl::Status QuantizeWeight(std::span<const int64_t> shape, const float* x, float* out,
                              float* scales = nullptr, uint64_t key = 0, uint32_t site = 0) const;

  // The same in parts. First PartAmax over all parts where NeedsAmax, merged; then QuantizePart of
  // rows first_row .. first_row + m.rows. With block_2d first_row is a multiple of 32, and so is
  // m.rows but in the last part.
  bool NeedsAmax() const;
  Amax PartAmax(const float* x, int64_t rows, int64_t cols, int64_t stride) const;
  struct WeightPart {
    int64_t first_row = 0;
    Amax amax;         // of the whole weight; read where NeedsAmax
    uint64_t key = 0;  // as above
    uint32_t site = 0;
  };
  void QuantizePart(const MatrixRows& m, const WeightPart& part) const;

  // Rows of an activation, each by itself. keys: one per row with stochastic rounding
  // (base::StochasticRoundingKey of the group), element = column; may be empty without it.
  void QuantizeRows(const MatrixRows& m, std::span<const RowKey> keys, uint32_t site) const;

  // Scales of a row of `cols` values: one per block, or one where the span is the tensor or row
  // (NVFP4 always has them per block).
  int64_t ScalesPerRow(int64_t cols) const;

  // Neighbours of a row of `cols` values that share a scale: the block, or the whole row.
  int64_t ValuesPerScale(int64_t cols) const;

  const FormatSpec& spec() const { return spec_; }

 private:
  struct RowJob;
  FakeQuantizer(const FormatSpec& spec, Operand operand, SimdPath path);
  // Row r of m, without a key; amax is its own where the span is the row.
  RowJob JobOf(const kernels::FormatKernels& kernels, const MatrixRows& m, int64_t r) const;
  void QuantizeRow(const RowJob& job) const;
  void QuantizeTiles(const MatrixRows& m, const WeightPart& part) const;

  FormatSpec spec_;
  Operand operand_;
  ScaleSpan span_;
  SimdPath path_;
};

}  // namespace temper::numerics
