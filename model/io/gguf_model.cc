#include "model/io/gguf_model.h"

#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "model/io/loader.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

// GGUF keeps float32; the decimal number someone wrote is its shortest spelling (1e-05, not
// 9.99999974737875e-06).
double Shortest(double stored) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), static_cast<float>(stored)).ptr;
  double value = stored;
  std::from_chars(text, end, value);
  return value;
}

// Reads `key` if it is there.
absl::StatusOr<std::optional<int64_t>> OptionalInteger(const GgufFile& file,
                                                       const std::string& key) {
  if (!file.Has(key)) return std::optional<int64_t>();
  TEMPER_ASSIGN_OR_RETURN(const int64_t value, file.Integer(key));
  return std::optional<int64_t>(value);
}

absl::StatusOr<int32_t> TokenIdOr(const GgufFile& file, const std::string& key, int32_t fallback) {
  TEMPER_ASSIGN_OR_RETURN(const std::optional<int64_t> id, OptionalInteger(file, key));
  if (!id.has_value()) return fallback;
  if (*id < 0 || *id > INT32_MAX) {
    return absl::InvalidArgumentError(base::Cat("metadata ", key, " is ", *id));
  }
  return static_cast<int32_t>(*id);
}

absl::Status RefuseUnsupported(const GgufFile& file, const std::string& prefix) {
  if (file.Has(prefix + "rope.scaling.type")) {
    TEMPER_ASSIGN_OR_RETURN(const std::string type, file.String(prefix + "rope.scaling.type"));
    if (type != "none") {
      return absl::InvalidArgumentError(
          base::Cat("RoPE scaling of type ", type, " is not supported"));
    }
  }
  if (file.tensors().contains("rope_freqs.weight")) {
    return absl::InvalidArgumentError("RoPE with its own frequencies is not supported");
  }
  TEMPER_ASSIGN_OR_RETURN(const auto experts, OptionalInteger(file, prefix + "expert_count"));
  if (experts.value_or(0) > 0) {
    return absl::InvalidArgumentError("mixtures of experts are not supported");
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const GgufFile& file, const std::string& prefix, ModelConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(config.num_layers, file.Integer(prefix + "block_count"));
  TEMPER_ASSIGN_OR_RETURN(config.hidden_size, file.Integer(prefix + "embedding_length"));
  TEMPER_ASSIGN_OR_RETURN(config.intermediate_size, file.Integer(prefix + "feed_forward_length"));
  TEMPER_ASSIGN_OR_RETURN(config.num_heads, file.Integer(prefix + "attention.head_count"));
  TEMPER_ASSIGN_OR_RETURN(config.max_position_embeddings, file.Integer(prefix + "context_length"));
  TEMPER_ASSIGN_OR_RETURN(const auto kv_heads,
                          OptionalInteger(file, prefix + "attention.head_count_kv"));
  config.num_kv_heads = kv_heads.value_or(config.num_heads);
  if (config.num_heads < 1) {
    return absl::InvalidArgumentError(
        base::Cat("metadata ", prefix, "attention.head_count is ", config.num_heads));
  }
  TEMPER_ASSIGN_OR_RETURN(const auto key_length,
                          OptionalInteger(file, prefix + "attention.key_length"));
  config.head_dim = key_length.value_or(config.hidden_size / config.num_heads);
  TEMPER_ASSIGN_OR_RETURN(const auto rope_dims,
                          OptionalInteger(file, prefix + "rope.dimension_count"));
  if (rope_dims.value_or(config.head_dim) != config.head_dim) {
    return absl::InvalidArgumentError(base::Cat("partial rotary embeddings (", *rope_dims, " of ",
                                                config.head_dim, " dimensions) are not supported"));
  }
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end() || embedding->second.shape.size() != 2) {
    return absl::DataLossError("the file has no tensor token_embd.weight of two dimensions");
  }
  config.vocab_size = embedding->second.shape[0];
  return absl::OkStatus();
}

// Puts the rows of each head from pairs side by side to pairs half a head apart:
//   out[h, s, i] = in[h, i, s],  s in {0, 1}, i in 0 .. head_dim / 2 - 1
void RestoreRopeOrder(int64_t heads, int64_t head_dim, TensorData& tensor) {
  const int64_t half = head_dim / 2;
  const int64_t width = static_cast<int64_t>(tensor.values.size()) / (heads * head_dim);
  std::vector<float> ordered(tensor.values.size());
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t s = 0; s < 2; ++s) {
      for (int64_t i = 0; i < half; ++i) {
        const float* from = tensor.values.data() + (h * head_dim + 2 * i + s) * width;
        float* to = ordered.data() + (h * head_dim + s * half + i) * width;
        std::copy(from, from + width, to);
      }
    }
  }
  tensor.values = std::move(ordered);
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromGguf(const GgufFile& file) {
  TEMPER_ASSIGN_OR_RETURN(const std::string architecture, file.String("general.architecture"));
  ModelConfig config;
  if (architecture == "llama") {
    config.architecture = "LlamaForCausalLM";
  } else if (architecture == "qwen2") {
    config.architecture = "Qwen2ForCausalLM";
    config.qkv_bias = true;
  } else if (architecture == "qwen3") {
    config.architecture = "Qwen3ForCausalLM";
    config.qk_norm = true;
  } else {
    return absl::InvalidArgumentError(base::Cat("GGUF architecture ", architecture,
                                                " is not supported (llama, qwen2, qwen3 are)"));
  }
  const std::string prefix = architecture + ".";
  TEMPER_RETURN_IF_ERROR(RefuseUnsupported(file, prefix));
  TEMPER_RETURN_IF_ERROR(ReadSizes(file, prefix, config));
  TEMPER_ASSIGN_OR_RETURN(const double eps,
                          file.Float(prefix + "attention.layer_norm_rms_epsilon"));
  config.rms_norm_eps = Shortest(eps);
  if (file.Has(prefix + "rope.freq_base")) {
    TEMPER_ASSIGN_OR_RETURN(const double theta, file.Float(prefix + "rope.freq_base"));
    config.rope_theta = Shortest(theta);
  }
  config.tie_word_embeddings = !file.tensors().contains("output.weight");
  TEMPER_ASSIGN_OR_RETURN(config.bos_token_id, TokenIdOr(file, "tokenizer.ggml.bos_token_id", -1));
  TEMPER_ASSIGN_OR_RETURN(config.pad_token_id,
                          TokenIdOr(file, "tokenizer.ggml.padding_token_id", -1));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    TEMPER_ASSIGN_OR_RETURN(const int32_t id, TokenIdOr(file, key, -1));
    if (id >= 0 && (config.eos_token_ids.empty() || config.eos_token_ids.front() != id)) {
      config.eos_token_ids.push_back(id);
    }
  }
  TEMPER_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

std::string GgufName(const std::string& name) {
  static constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
      {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
  };
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return name;
  const size_t layer_end = name.find('.', kLayers.size());
  const size_t kind = name.rfind('.');
  if (layer_end == std::string::npos || kind <= layer_end) return name;
  const std::string layer = name.substr(kLayers.size(), layer_end - kLayers.size());
  const std::string part = name.substr(layer_end + 1, kind - layer_end - 1);
  for (const auto& [hugging_face, gguf] : kParts) {
    if (part == hugging_face) return base::Cat("blk.", layer, ".", gguf, name.substr(kind));
  }
  return name;
}

absl::Status CheckGgufTensors(const GgufFile& file, const ModelConfig& config) {
  std::set<std::string> used;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    const std::string name = GgufName(expected.name);
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end()) {
      // Reading says whether it is missing or of a type that is not supported.
      const absl::Status status = file.Read(name).status();
      return absl::IsNotFound(status) ? absl::DataLossError(status.message()) : status;
    }
    if (found->second.shape != expected.shape) {
      return absl::DataLossError(
          base::Cat("tensor ", name, " has shape [", absl::StrJoin(found->second.shape, ", "),
                    "], the metadata asks for [", absl::StrJoin(expected.shape, ", "), "]"));
    }
    used.insert(name);
  }
  for (const auto& [name, tensor] : file.tensors()) {
    if (!used.contains(name)) {
      return absl::InvalidArgumentError(
          base::Cat("tensor ", name, " has no place in a ", config.architecture));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorData> TensorFromGguf(const GgufFile& file, const ModelConfig& config,
                                          const std::string& name) {
  TEMPER_ASSIGN_OR_RETURN(TensorData tensor, file.Read(GgufName(name)));
  if (config.architecture == "LlamaForCausalLM") {
    const bool query = absl::StrContains(name, "q_proj");
    if (query || absl::StrContains(name, "k_proj")) {
      RestoreRopeOrder(query ? config.num_heads : config.num_kv_heads, config.head_dim, tensor);
    }
  }
  return tensor;
}

absl::StatusOr<GgufTokenizer> TokenizerFromGguf(const GgufFile& file) {
  GgufTokenizer tokenizer;
  TEMPER_ASSIGN_OR_RETURN(tokenizer.model, file.String("tokenizer.ggml.model"));
  TEMPER_ASSIGN_OR_RETURN(tokenizer.tokens, file.Strings("tokenizer.ggml.tokens"));
  if (file.Has("tokenizer.ggml.pre")) {
    TEMPER_ASSIGN_OR_RETURN(tokenizer.pre, file.String("tokenizer.ggml.pre"));
  }
  if (file.Has("tokenizer.ggml.merges")) {
    TEMPER_ASSIGN_OR_RETURN(tokenizer.merges, file.Strings("tokenizer.ggml.merges"));
  }
  if (file.Has("tokenizer.ggml.token_type")) {
    TEMPER_ASSIGN_OR_RETURN(const std::vector<int64_t> types,
                            file.Integers("tokenizer.ggml.token_type"));
    tokenizer.token_types.assign(types.begin(), types.end());
  }
  if (file.Has("tokenizer.chat_template")) {
    TEMPER_ASSIGN_OR_RETURN(tokenizer.chat_template, file.String("tokenizer.chat_template"));
  }
  TEMPER_ASSIGN_OR_RETURN(tokenizer.bos_token_id,
                          TokenIdOr(file, "tokenizer.ggml.bos_token_id", -1));
  TEMPER_ASSIGN_OR_RETURN(tokenizer.eos_token_id,
                          TokenIdOr(file, "tokenizer.ggml.eos_token_id", -1));
  TEMPER_ASSIGN_OR_RETURN(tokenizer.pad_token_id,
                          TokenIdOr(file, "tokenizer.ggml.padding_token_id", -1));
  TEMPER_ASSIGN_OR_RETURN(tokenizer.unknown_token_id,
                          TokenIdOr(file, "tokenizer.ggml.unknown_token_id", -1));
  return tokenizer;
}

}  // namespace temper::model
