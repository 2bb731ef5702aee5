#include "model/io/loader.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_join.h"
#include "model/io/gguf.h"
#include "model/io/gguf_model.h"
#include "model/io/json.h"
#include "model/io/model_reader.h"
#include "model/io/safetensors.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
constexpr int64_t kMaxTokenizerBytes = int64_t{256} << 20;

bool IsDirectory(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

std::string Join(const std::string& dir, std::string_view name) {
  return (std::filesystem::path(dir) / name).string();
}

// The text of `dir`/`name`, or "" if there is no such file.
absl::StatusOr<std::string> ReadOptional(const std::string& dir, std::string_view name) {
  const std::string path = Join(dir, name);
  if (!base::PathExists(path)) return std::string();
  return base::ReadFile(path, kMaxConfigBytes);
}

template <typename Tensors>
TensorShapes ShapesOf(const Tensors& tensors) {
  TensorShapes shapes;
  for (const auto& [name, tensor] : tensors) shapes.emplace(name, tensor.shape);
  return shapes;
}

absl::StatusOr<ModelConfig> LoadDirectoryConfig(const std::string& dir) {
  const std::string path = Join(dir, "config.json");
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxConfigBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (!config.ok()) return base::Annotate(config.status(), path);
  TEMPER_ASSIGN_OR_RETURN(const std::string generation,
                          ReadOptional(dir, "generation_config.json"));
  if (!generation.empty()) {
    const absl::Status merged = MergeGenerationConfig(generation, *config);
    if (!merged.ok()) return base::Annotate(merged, dir);
  }
  return config;
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t query = config.num_heads * config.head_dim;
  const int64_t key_value = config.num_kv_heads * config.head_dim;
  std::vector<ExpectedTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto add = [&, prefix = base::Cat("model.layers.", layer, ".")](
                         std::string_view name, std::vector<int64_t> shape) {
      tensors.push_back({base::Cat(prefix, name), std::move(shape)});
    };
    add("input_layernorm.weight", {hidden});
    for (const auto& [name, width] : {std::pair<std::string_view, int64_t>("q_proj", query),
                                      {"k_proj", key_value},
                                      {"v_proj", key_value}}) {
      add(base::Cat("self_attn.", name, ".weight"), {width, hidden});
      if (config.qkv_bias) add(base::Cat("self_attn.", name, ".bias"), {width});
    }
    if (config.qk_norm) {
      add("self_attn.q_norm.weight", {config.head_dim});
      add("self_attn.k_norm.weight", {config.head_dim});
    }
    add("self_attn.o_proj.weight", {hidden, query});
    add("post_attention_layernorm.weight", {hidden});
    add("mlp.gate_proj.weight", {config.intermediate_size, hidden});
    add("mlp.up_proj.weight", {config.intermediate_size, hidden});
    add("mlp.down_proj.weight", {hidden, config.intermediate_size});
  }
  tensors.push_back({"model.norm.weight", {hidden}});
  if (!config.tie_word_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  }
  return tensors;
}

absl::Status CheckTensors(const ModelConfig& config, const TensorShapes& shapes) {
  const std::vector<ExpectedTensor> expected = ExpectedTensors(config);
  for (const ExpectedTensor& tensor : expected) {
    const auto found = shapes.find(tensor.name);
    if (found == shapes.end()) {
      return absl::DataLossError(base::Cat("tensor ", tensor.name, " is missing"));
    }
    if (found->second != tensor.shape) {
      return absl::DataLossError(
          base::Cat("tensor ", tensor.name, " has shape [", absl::StrJoin(found->second, ", "),
                    "], the configuration asks for [", absl::StrJoin(tensor.shape, ", "), "]"));
    }
  }
  if (shapes.size() == expected.size()) return absl::OkStatus();
  TensorShapes rest = shapes;
  for (const ExpectedTensor& tensor : expected) rest.erase(tensor.name);
  return absl::InvalidArgumentError(
      base::Cat("tensor ", rest.begin()->first, " has no place in this ", config.architecture));
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  if (IsDirectory(path)) return LoadDirectoryConfig(path);
  TEMPER_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  absl::StatusOr<ModelConfig> config = ModelConfigFromGguf(*file);
  if (!config.ok()) return base::Annotate(config.status(), path);
  return config;
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(const auto reader, ModelReader::Open(path));
  LoadedModel model = {.config = reader->config(), .tensors = {}};
  for (const StoredTensor& stored : reader->tensors()) {
    TEMPER_ASSIGN_OR_RETURN(TensorData tensor, reader->Read(stored.name));
    model.tensors.emplace(stored.name, std::move(tensor));
  }
  return model;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  if (IsDirectory(path)) {
    TEMPER_ASSIGN_OR_RETURN(const std::string text,
                            base::ReadFile(Join(path, "tokenizer.json"), kMaxTokenizerBytes));
    tokenizer = Tokenizer::FromJson(text);
  } else {
    TEMPER_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    TEMPER_ASSIGN_OR_RETURN(const GgufTokenizer metadata, TokenizerFromGguf(*file));
    tokenizer = Tokenizer::FromGguf(metadata);
  }
  if (!tokenizer.ok()) return base::Annotate(tokenizer.status(), path);
  return tokenizer;
}

absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& path) {
  std::string text;
  if (IsDirectory(path)) {
    TEMPER_ASSIGN_OR_RETURN(text, ReadOptional(path, "chat_template.jinja"));
    TEMPER_ASSIGN_OR_RETURN(const std::string config, ReadOptional(path, "tokenizer_config.json"));
    if (text.empty() && !config.empty()) {
      TEMPER_ASSIGN_OR_RETURN(const json::Value object,
                              json::ParseObject(config, Join(path, "tokenizer_config.json")));
      TEMPER_ASSIGN_OR_RETURN(text, json::StringOr(object, "chat_template", ""));
    }
  } else {
    TEMPER_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    if (file->Has("tokenizer.chat_template")) {
      TEMPER_ASSIGN_OR_RETURN(text, file->String("tokenizer.chat_template"));
    }
  }
  absl::StatusOr<ChatTemplate> result = RecognizeChatTemplate(text);
  if (!result.ok()) return base::Annotate(result.status(), path);
  return result;
}

namespace {

std::string GenerationConfigJson(const ModelConfig& config) {
  json::Value object = {{"do_sample", true}, {"temperature", 1.0}};
  if (config.bos_token_id >= 0) object["bos_token_id"] = config.bos_token_id;
  if (config.pad_token_id >= 0) object["pad_token_id"] = config.pad_token_id;
  if (!config.eos_token_ids.empty()) object["eos_token_id"] = config.eos_token_ids;
  return base::Cat(object.dump(2), "\n");
}

// The text of token `id` among the added tokens of a tokenizer.json, or null.
json::Value AddedTokenText(const json::Value& tokenizer, int32_t id) {
  for (const json::Value& token : json::Member(tokenizer, "added_tokens")) {
    if (json::Member(token, "id") == id) return json::Member(token, "content");
  }
  return nullptr;
}

absl::StatusOr<std::string> TokenizerConfigJson(const HuggingFaceModel& model) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value tokenizer,
                          json::ParseObject(model.tokenizer_json, "tokenizer.json"));
  const ModelConfig& config = model.config;
  const int32_t eos = config.eos_token_ids.empty() ? -1 : config.eos_token_ids.front();
  json::Value object = {
      {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"clean_up_tokenization_spaces", false},
      {"model_max_length", config.max_position_embeddings},
      {"bos_token", AddedTokenText(tokenizer, config.bos_token_id)},
      {"eos_token", AddedTokenText(tokenizer, eos)},
      {"pad_token", AddedTokenText(tokenizer, config.pad_token_id)},
  };
  if (!model.chat_template.empty()) object["chat_template"] = model.chat_template;
  return base::Cat(object.dump(2), "\n");
}

}  // namespace

absl::Status SaveModelFiles(const std::string& dir, const HuggingFaceModel& model) {
  TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(
      Join(dir, "config.json"), ModelConfigToJson(model.config, StorageTypeName(model.storage))));
  TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(Join(dir, "generation_config.json"),
                                                   GenerationConfigJson(model.config)));
  if (!model.tokenizer_json.empty()) {
    TEMPER_ASSIGN_OR_RETURN(const std::string config, TokenizerConfigJson(model));
    TEMPER_RETURN_IF_ERROR(
        base::WriteFileAtomically(Join(dir, "tokenizer.json"), model.tokenizer_json));
    TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(Join(dir, "tokenizer_config.json"), config));
  }
  if (!model.chat_template.empty()) {
    TEMPER_RETURN_IF_ERROR(
        base::WriteFileAtomically(Join(dir, "chat_template.jinja"), model.chat_template));
  }
  return base::SyncDirectory(dir);
}

absl::Status SaveHuggingFace(const std::string& dir, const HuggingFaceModel& model) {
  TEMPER_RETURN_IF_ERROR(ValidateModelConfig(model.config));
  const absl::Status complete = CheckTensors(model.config, ShapesOf(model.tensors));
  if (!complete.ok()) {
    return absl::InvalidArgumentError(
        base::Cat("cannot save ", dir, ": ", base::FromAbsl(complete.message())));
  }
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(dir));
  TEMPER_RETURN_IF_ERROR(
      WriteSafetensors(Join(dir, "model.safetensors"), model.tensors, model.storage));
  return SaveModelFiles(dir, model);
}

absl::Status CopyModelFiles(const std::string& from_dir, const std::string& to_dir) {
  // What transformers and tokenizers look for beside the weights.
  static constexpr const char* kFiles[] = {"config.json",
                                           "generation_config.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "tokenizer.model",
                                           "chat_template.jinja",
                                           "chat_template.json"};
  for (const char* name : kFiles) {
    const std::string from = Join(from_dir, name);
    if (!base::PathExists(from)) continue;
    TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(from, kMaxTokenizerBytes));
    TEMPER_RETURN_IF_ERROR(base::WriteFileAtomically(Join(to_dir, name), text));
  }
  return base::SyncDirectory(to_dir);
}

}  // namespace temper::model
