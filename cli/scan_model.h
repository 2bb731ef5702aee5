#pragma once

// What `temper scan` does, between its flags and its output.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/scan_sequences.h"
#include "scan/labels.h"
#include "scan/scan_result.h"

namespace temper::cli {

struct ScanOptions {
  PromptOptions prompts;            // with the model's path
  uint32_t completion_tokens = 64;  // generated where none is recorded
  std::vector<std::string> errors;  // of the static scan: scan::ParseScanError
  bool layer_outputs = false;       // of decoder layers in place of inputs of linears
  std::string sensitivity_error;    // empty: not measured
  bool per_operator = false;        // of sensitivity
  bool find_fault = false;
  std::string inject;                   // scan::ParseFault; empty: none
  std::vector<std::string> references;  // scan.json of healthy devices; may be empty
  int repeats = 2;                      // of the suspected device
  scan::LabelOptions labels;
  numerics::TrainingMode training = numerics::TrainingMode::kFull;
  uint64_t seed = 1;
  int threads = 1;
};

// What is being done and how far; done and all may be 0 where that is not known.
using ScanProgress = std::function<void(const std::string& what, size_t done, size_t all)>;

// Everything is checked before anything long begins. Errors: InvalidArgument for a name, layer or
// file that is wrong, a reference of another model or other tokens; those of the loader and of
// scan/.
absl::StatusOr<scan::ScanResult> ScanModel(const ScanOptions& options,
                                           const ScanProgress& progress);

}  // namespace temper::cli
