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

// Perturbs a weight of [out, in] features and counts what that did. key: of a Gaussian draw.
numerics::QuantizationStats ScanWeight(const ScanError& error, const float* w, int64_t out,
                                       int64_t in, uint64_t key, uint32_t site);

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
