#pragma once

// What a GGUF file of the llama family (llama, qwen2, qwen3) means as a Hugging Face model.

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "model/io/gguf.h"
#include "model/io/model_config.h"
#include "model/io/tensor_data.h"
#include "model/io/tokenizer.h"

namespace temper::model {

// The configuration of general.architecture llama, qwen2 or qwen3. Errors: InvalidArgument for
// another architecture, rope scaling or experts, by name; NotFound for a missing key.
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file);

// All weights by Hugging Face name, dequantized. In llama files the rows of each Q and K head stand
// with RoPE pairs side by side (2i, 2i+1); Hugging Face has them half a head apart (i, i + d/2), so
// those rows are put back in order. only: these alone, by Hugging Face name; null: all.
// Errors: DataLoss for a missing tensor or a wrong shape.
absl::StatusOr<TensorMap> TensorsFromGguf(const GgufFile& file, const ModelConfig& config,
                                          const std::set<std::string>* only = nullptr);

// The tokenizer's metadata. NotFound if the file carries none.
absl::StatusOr<GgufTokenizer> TokenizerFromGguf(const GgufFile& file);

}  // namespace temper::model
