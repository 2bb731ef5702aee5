#pragma once

// From measurements to labels, multipliers and advice. Pure.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scan/scan_result.h"

namespace temper::scan {

struct LabelOptions {
  std::string by = "sqnr";        // "sensitivity", "sqnr", "dead_zone"
  bool quantized_inputs = false;  // the worse of weights and inputs counts, else weights alone
  numerics::LabelRule rule;       // smaller_is_worse is set from `by`
  numerics::LabelMultipliers multipliers;
};

// A label per layer. sensitivity: of operators measured alone, the layer's sum. sqnr, dead_zone: of
// the first error of the scan, the median over the layer's linears (with --site layer_output the
// layer's own). InvalidArgument for an unknown metric, or one that was not measured.
absl::StatusOr<Labels> LabelLayers(const ScanResult& result, const LabelOptions& options);

// What the advisor says of each number format that was scanned; none for error types.
// InvalidArgument as AdviseAqn: quantized inputs need a scan of inputs.
absl::StatusOr<std::vector<FormatAdvice>> AdviseOnFormats(const ScanResult& result,
                                                          numerics::TrainingMode training,
                                                          bool quantized_inputs);

}  // namespace temper::scan
