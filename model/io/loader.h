#pragma once

// A model on disk: a Hugging Face directory, or a GGUF file of the llama family.
//
//   directory  config.json, model.safetensors (or model.safetensors.index.json and its shards),
//              tokenizer.json; optional generation_config.json, tokenizer_config.json,
//              chat_template.jinja
//   GGUF       one file with everything inside
//
// Functions are thread-safe and keep nothing. Errors of all of them: NotFound names the missing
// file; InvalidArgument: a model that is not supported, or JSON that lacks a field; DataLoss: bytes
// that cannot be what they say they are (truncated, sizes that lie, tensors missing or of the wrong
// shape), with the file, the tensor and both values.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/chat_template.h"
#include "model/io/model_config.h"
#include "model/io/tensor_data.h"
#include "model/io/tokenizer.h"

namespace temper::model {

// A model's shape and weights, float32 whatever the file stores.
struct LoadedModel {
  ModelConfig config;
  // Exactly the names of ExpectedTensors(config), each of that shape. Linear weights are [out, in].
  TensorMap tensors;
};

// The names and shapes a model of this configuration consists of, in Hugging Face order:
//   model.embed_tokens.weight [vocab, hidden]; for each layer N, under model.layers.N.:
//   input_layernorm.weight, self_attn.{q,k,v}_proj.weight (+ .bias with qkv_bias),
//   self_attn.{q,k}_norm.weight [head_dim] with qk_norm, self_attn.o_proj.weight,
//   post_attention_layernorm.weight, mlp.{gate,up,down}_proj.weight; model.norm.weight;
//   lm_head.weight unless tied.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// OK if `shapes` are those of ExpectedTensors(config). DataLoss for a tensor that is missing or of
// another shape, InvalidArgument for one too many, by name.
using TensorShapes = std::map<std::string, std::vector<int64_t>>;
absl::Status CheckTensors(const ModelConfig& config, const TensorShapes& shapes);

// Reads configuration and weights. ModelReader (model_reader.h) reads them tensor by tensor.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path);

// Reads the configuration alone (cheap; the weights stay on disk).
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

// Reads the tokenizer alone.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path);

// Reads the chat template alone: chat_template.jinja, else `chat_template` of
// tokenizer_config.json, else (or in a GGUF without one) plain.
absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& path);

// What SaveHuggingFace writes. The views must stay valid during the call.
struct HuggingFaceModel {
  ModelConfig config;
  TensorViewMap tensors;       // exactly ExpectedTensors(config)
  std::string tokenizer_json;  // Tokenizer::ToTokenizerJson(); empty: no tokenizer files
  std::string chat_template;   // ChatTemplate::source; empty: none
  StorageType storage = StorageType::kFloat32;
};

// Writes config.json, generation_config.json, model.safetensors, tokenizer.json,
// tokenizer_config.json and chat_template.jinja into `dir` (made if missing). Each file is written
// under a temporary name, synced and renamed; the directory is synced at the end. A directory that
// must appear at once is for the caller to write under a temporary name and rename.
// Errors also: InvalidArgument if the tensors are not those of the configuration;
// ResourceExhausted on a full disk (nothing half-written stays under a final name).
absl::Status SaveHuggingFace(const std::string& dir, const HuggingFaceModel& model);

// The same without the weights, into a directory that exists: for a model whose weights are written
// tensor by tensor. model.tensors is not looked at; model.storage names the type in config.json.
absl::Status SaveModelFiles(const std::string& dir, const HuggingFaceModel& model);

// Copies what stands beside the weights of a Hugging Face directory (configuration, tokenizer, chat
// template) as it is. Both directories exist.
absl::Status CopyModelFiles(const std::string& from_dir, const std::string& to_dir);

}  // namespace temper::model
