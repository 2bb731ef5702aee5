#pragma once

// What the kernels read: plain structs, the same for device and host, without CUDA's headers. A
// structure named "in device memory" is read at every run of a kernel, so a captured CUDA graph
// that is replayed after it was rewritten draws new noise under new keys. All else is fixed when
// the kernel is launched or captured.

#include <cstdint>

#include "numerics/error_type.h"
#include "numerics/row_key.h"

namespace temper::numerics::cuda {

// In device memory: how strongly an operator errs. Made by MakeErrorParameters.
struct ErrorParameters {
  float strength = 0.0f;     // s, t or m of numerics/operator_error.h; 0: no error
  uint32_t last_struck = 0;  // of spike: the largest word that is struck
};

// In device memory: one draw of AQN for one norm, gamma' = fma(scale, n, gamma).
struct NormDraw {
  uint64_t key = 0;    // base::AqnKey
  float scale = 0.0f;  // float(sigma * multiplier [* RMS(gamma)]); 0: the clean norm
};

// In device memory: the largest magnitude of a whole tensor, written by the kernel for it.
struct TensorAmax {
  uint32_t finite_bits = 0;  // of the values that are finite, as bits
  uint32_t non_finite = 0;   // 1: there are others
};

// A sum of doubles as a 192-bit fixed-point number in units of 2^-70: ExactSum with 64 more bits
// above, so that integers added in any order give its result with its saturation.
struct WideSum {
  unsigned long long low = 0, high = 0, above = 0;
};

// In device memory: what the errors did to one row since it was last zeroed. Host: CountsOfRows.
struct RowCounts {
  unsigned long long calls = 0;
  unsigned long long elements = 0;
  unsigned long long changed = 0;
  unsigned long long non_finite = 0;
  WideSum sum_sq_error;
  WideSum sum_sq_value;
};

// y: [rows, cols], perturbed in place. One block per tile of a row.
struct ErrorArguments {
  ErrorType type = ErrorType::kRelativeGaussian;
  bool relative = false;  // of systematic_bias
  float* y = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  const RowKey* row_keys = nullptr;             // in device memory, [rows]
  const ErrorParameters* parameters = nullptr;  // in device memory
  uint32_t site = 0;
  // Scratch, [rows], of deadzone, saturation and spike: bits of the largest finite |x| of the row,
  // by a kernel of its own, because blocks that change a row cannot also look for its maximum.
  uint32_t* row_maxima = nullptr;
  RowCounts* counts = nullptr;  // [rows], added to; or null
};

// y = (x * r) * gamma', r = 1 / sqrt(mean x^2 + eps). One block per row; y may be x.
struct NormArguments {
  const float* x = nullptr;
  float* y = nullptr;
  const float* gamma = nullptr;  // [cols], clean, never written
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  float eps = 0.0f;
  const NormDraw* draws = nullptr;  // in device memory; null: clean
  int64_t draw_stride = 0;          // 0: one draw for all rows; 1: one per row (AQN per group)
  uint32_t site = 0;                // NormSite
  float* inv_rms = nullptr;         // r of each row, or null
};

enum class QuantizeFormat : uint8_t { kMxfp4, kNvfp4, kFp8 };
enum class QuantizeSpan : uint8_t { kTensor, kRow, kBlock };

// out = Q(x), [rows, cols]; out may be x. One block per row where the scale is taken over the row,
// else per tile.
struct QuantizeArguments {
  QuantizeFormat format = QuantizeFormat::kMxfp4;
  QuantizeSpan span = QuantizeSpan::kBlock;
  bool stochastic = false;
  const float* x = nullptr;
  float* out = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  float* scales = nullptr;            // [rows, FakeQuantizer::ScalesPerRow(cols)], or null
  TensorAmax* tensor_amax = nullptr;  // scratch, where the span is the tensor
  // Stochastic rounding: the word of element row * element_stride + column under
  // row_keys[row * key_stride]. Activations: strides 0 and 1; weights: cols and 0.
  const RowKey* row_keys = nullptr;  // in device memory
  int64_t element_stride = 0;
  int64_t key_stride = 1;
  uint32_t site = 0;
  RowCounts* counts = nullptr;  // [rows], added to; or null
};

}  // namespace temper::numerics::cuda
