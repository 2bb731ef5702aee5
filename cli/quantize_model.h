#pragma once

// A model with fake-quantized linears, written as a Hugging Face directory for other tools.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/tensor_data.h"
#include "numerics/formats/number_format.h"

namespace temper::cli {

struct QuantizeOptions {
  std::string model;  // Hugging Face directory or GGUF file
  std::string out;    // must not exist
  numerics::FormatSpec format;
  // Path patterns as in noisy_ops (numerics/noise_policy.h). Empty targets: every linear of every
  // decoder layer; lm_head by name only.
  std::vector<std::string> targets;
  std::vector<std::string> excludes;
};

// What became of one weight. Shares and dB as in numerics/formats/quantization_stats.h, of the
// values that were written, so rounded to the storage type.
struct QuantizedTensor {
  std::string name;
  model::StorageType storage = model::StorageType::kFloat32;
  int64_t elements = 0;
  int64_t non_finite = 0;  // left out of the numbers below
  double sqnr_db = 0.0;
  double sqnr_db_without_largest = 0.0;  // the 0.1 % of largest magnitude
  double block_row_sqnr_db = 0.0;        // median
  double dead_zone = 0.0;
  double relative_error = 0.0;
  double saturation = 0.0;
  int64_t rounded = 0;  // values that the storage type changed after quantization
};

// Writes options.out: quantized linears, everything else bit for bit, each tensor in the type it
// was stored in (float32 where a GGUF file has blocks of integers). Files beside the weights are
// copied from a directory, made from a GGUF file. The directory is written under
// "<out>.partial-<pid>" and renamed at the end; on an error nothing remains. One tensor is in
// memory at a time, in float32, as often as twice.
//
// report: called for each quantized tensor, in the model's order.
// Errors: InvalidArgument for an existing `out`, a combination of the format that does not exist, a
// pattern that selects nothing or an operator without weights; those of model/io/loader.h and
// services/base/files.h.
absl::Status QuantizeModel(const QuantizeOptions& options,
                           absl::FunctionRef<void(const QuantizedTensor&)> report);

}  // namespace temper::cli
