#pragma once

// What a GGUF file of the llama family (llama, qwen2, qwen3) means as a Hugging Face model.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/gguf.h"
#include "model/io/model_config.h"
#include "model/io/tensor_data.h"
#include "model/io/tokenizer.h"

namespace temper::model {

// The configuration of general.architecture llama, qwen2 or qwen3. Errors: InvalidArgument for
// another architecture, rope scaling or experts, by name; NotFound for a missing key.
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file);

// OK if the file holds the weights of `config`: names and shapes, nothing of the values.
// Errors: DataLoss for a missing tensor or a wrong shape; InvalidArgument for one that has no
// place, or of a type this reader cannot dequantize.
absl::Status CheckGgufTensors(const GgufFile& file, const ModelConfig& config);

// The GGUF name of a Hugging Face tensor; a name that is none stays as it is.
std::string GgufName(const std::string& name);

// One weight by its Hugging Face name, dequantized. In llama files the rows of each Q and K head
// stand with RoPE pairs side by side (2i, 2i+1); Hugging Face has them half a head apart
// (i, i + d/2), so those rows are put back in order. The file passed CheckGgufTensors. NotFound for
// another name.
absl::StatusOr<TensorData> TensorFromGguf(const GgufFile& file, const ModelConfig& config,
                                          const std::string& name);

// The tokenizer's metadata. NotFound if the file carries none.
absl::StatusOr<GgufTokenizer> TokenizerFromGguf(const GgufFile& file);

}  // namespace temper::model
