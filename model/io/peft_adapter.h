#pragma once

// Adapters as PEFT keeps them: a directory of
//   adapter_config.json         rank, alpha, modules, and where the base model is
//   adapter_model.safetensors   base_model.model.<module>.lora_A.weight, .lora_B.weight
// Functions are thread-safe and keep nothing.

#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/lora_spec.h"
#include "model/io/tensor_data.h"

namespace temper::model {

struct PeftAdapter {
  LoraSpec spec;
  TensorMap tensors;       // exactly LoraTensors(spec), by those names
  std::string base_model;  // as it stands in the file; may be empty
};

// Whether `path` is a directory with an adapter_config.json.
bool IsPeftAdapter(const std::string& path);

// base_model_name_or_path of an adapter, as it stands there. Errors: as ReadPeftAdapter.
absl::StatusOr<std::string> BaseOfPeftAdapter(const std::string& dir);

// The adapter in `dir`, for a base of this shape. Errors: NotFound names the missing file; DataLoss
// for bytes that cannot be what they say they are; InvalidArgument, naming the field or tensor, for
// what is not supported (another kind of adapter, biases, DoRA, rank-stabilised scaling, a rank or
// alpha that differs between modules, modules saved whole) or does not fit the base.
absl::StatusOr<PeftAdapter> ReadPeftAdapter(const std::string& dir, const ModelConfig& base);

// The views of what is written; valid during the call.
struct PeftAdapterViews {
  LoraSpec spec;
  TensorViewMap tensors;   // exactly LoraTensors(spec)
  std::string base_model;  // path or name that PEFT loads the base by
};

// Writes both files into `dir` (made if missing), each under a temporary name, synced and renamed.
// num_layers: of the base; target_modules is the short list where a module is adapted in all
// layers. Errors: InvalidArgument if the tensors are not those of the spec; those of base/files.h.
absl::Status WritePeftAdapter(const std::string& dir, const PeftAdapterViews& adapter,
                              int64_t num_layers);

// w += scale B A, with the sum over the rank in double and each number rounded once. a: [rank, in],
// b: [out, rank], w: [out, in].
void AddLowRank(std::span<const float> a, std::span<const float> b, int64_t rank, double scale,
                std::span<float> w);

}  // namespace temper::model
