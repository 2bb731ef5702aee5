#pragma once

// What a scan does to numbers: a number format, or one of the hardware errors.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "numerics/formats/number_format.h"
#include "numerics/formats/quantization_stats.h"
#include "numerics/operator_error.h"

namespace temper::scan {

struct ScanError {
  std::optional<numerics::NumberFormat> format;  // present: the format; absent: `error`
  numerics::OperatorError error;
  std::string name;  // "mxfp4", "relative_gaussian:0.05"
};

// "mxfp4", "nvfp4", "fp8", or "TYPE:STRENGTH" with a type of numerics/operator_error.h, and for
// spike "spike:MAGNITUDE:PROBABILITY". InvalidArgument, with what was given, for anything else and
// for a strength of 0 or out of the type's range.
absl::StatusOr<ScanError> ParseScanError(const std::string& text);

// Accumulators for values that this error acts on. An error type has no scale and no largest
// element, so nothing of it counts as saturated.
numerics::QuantizationStats EmptyStats(const ScanError& error);

// A weight of [out, in] features, and the key and site of a Gaussian draw.
struct WeightRows {
  const float* w = nullptr;
  int64_t out = 0;
  int64_t in = 0;
  uint64_t key = 0;
  uint32_t site = 0;
};
// Values of a weight that are counted at least; a larger one is sampled, every k-th row of it, with
// which the SQNR of a format is known to some hundredths of a dB.
inline constexpr int64_t kCountedValues = int64_t{1} << 18;

// Perturbs the whole weight and counts what that did. scratch: reused between calls of one thread.
numerics::QuantizationStats ScanWeight(const ScanError& error, const WeightRows& weight,
                                       std::vector<float>* scratch);

// Perturbs rows of an activation, each by itself. Thread-compatible; owns scratch memory for
// kChunkRows rows, whatever it is given.
class RowScanner final {
 public:
  explicit RowScanner(ScanError error) : error_(std::move(error)) {}
  // keys: one per row. Adds to `stats`.
  void Add(const float* x, int64_t rows, int64_t cols, std::span<const numerics::RowKey> keys,
           uint32_t site, numerics::QuantizationStats* stats);

 private:
  ScanError error_;
  std::vector<float> perturbed_;
  std::vector<float> scales_;
};

}  // namespace temper::scan
