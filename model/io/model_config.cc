#include "model/io/model_config.h"

#include <algorithm>
#include <cmath>

#include "model/io/json.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;
constexpr int64_t kMaxLayers = 1022;  // 1023 stands for "no layer" in the noise keys

absl::Status Unsupported(std::string_view what) {
  return absl::InvalidArgumentError(
      base::Cat("this model needs ", what, ", which is not supported"));
}

absl::Status RefuseTrue(const json::Value& object, std::string_view key) {
  TEMPER_ASSIGN_OR_RETURN(const bool value, json::BoolOr(object, key, false));
  return value ? Unsupported(key) : absl::OkStatus();
}

// RoPE stands in `rope_theta` and `rope_scaling` (transformers 4) or in `rope_parameters` (5).
absl::Status ReadRope(const json::Value& object, ModelConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(config.rope_theta, json::NumberOr(object, "rope_theta", 10000.0));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json::Value& rope = json::Member(object, key);
    if (rope.is_null()) continue;
    TEMPER_ASSIGN_OR_RETURN(const std::string legacy_type, json::StringOr(rope, "type", "default"));
    TEMPER_ASSIGN_OR_RETURN(const std::string type, json::StringOr(rope, "rope_type", legacy_type));
    if (type != "default") return Unsupported(base::Cat("RoPE scaling of type ", type));
    TEMPER_ASSIGN_OR_RETURN(config.rope_theta,
                            json::NumberOr(rope, "rope_theta", config.rope_theta));
    TEMPER_ASSIGN_OR_RETURN(const double part, json::NumberOr(rope, "partial_rotary_factor", 1.0));
    if (part != 1.0) return Unsupported("partial rotary embeddings");
  }
  TEMPER_ASSIGN_OR_RETURN(const double part, json::NumberOr(object, "partial_rotary_factor", 1.0));
  if (part != 1.0) return Unsupported("partial rotary embeddings");
  return absl::OkStatus();
}

// Reads `key` as one id or a list of ids and adds those that are not in `ids` yet.
absl::Status AppendTokenIds(const json::Value& object, std::string_view key,
                            std::vector<int32_t>& ids) {
  const json::Value& value = json::Member(object, key);
  const json::Value list = value.is_array() ? value : json::Value::array({value});
  for (const json::Value& id : list) {
    if (id.is_null()) continue;
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      return absl::InvalidArgumentError(
          base::Cat("field \"", key, "\" must hold token ids, not ", json::Excerpt(id)));
    }
    const int32_t token = id.get<int32_t>();
    if (std::find(ids.begin(), ids.end(), token) == ids.end()) ids.push_back(token);
  }
  return absl::OkStatus();
}

absl::Status ReadOneTokenId(const json::Value& object, std::string_view key, int32_t& id) {
  std::vector<int32_t> ids;
  TEMPER_RETURN_IF_ERROR(AppendTokenIds(object, key, ids));
  if (!ids.empty()) id = ids.front();
  return absl::OkStatus();
}

absl::Status ReadSizes(const json::Value& object, ModelConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(config.vocab_size, json::Integer(object, "vocab_size"));
  TEMPER_ASSIGN_OR_RETURN(config.hidden_size, json::Integer(object, "hidden_size"));
  TEMPER_ASSIGN_OR_RETURN(config.num_layers, json::Integer(object, "num_hidden_layers"));
  TEMPER_ASSIGN_OR_RETURN(config.num_heads, json::Integer(object, "num_attention_heads"));
  TEMPER_ASSIGN_OR_RETURN(config.intermediate_size, json::Integer(object, "intermediate_size"));
  TEMPER_ASSIGN_OR_RETURN(config.num_kv_heads,
                          json::IntegerOr(object, "num_key_value_heads", config.num_heads));
  if (config.num_heads <= 0) {
    return absl::InvalidArgumentError(
        base::Cat("field \"num_attention_heads\" must be positive, not ", config.num_heads));
  }
  // Qwen3's default does not follow from the other sizes.
  const int64_t default_head_dim =
      config.architecture == "Qwen3ForCausalLM" ? 128 : config.hidden_size / config.num_heads;
  TEMPER_ASSIGN_OR_RETURN(config.head_dim, json::IntegerOr(object, "head_dim", default_head_dim));
  TEMPER_ASSIGN_OR_RETURN(config.max_position_embeddings,
                          json::IntegerOr(object, "max_position_embeddings", 32768));
  TEMPER_ASSIGN_OR_RETURN(config.rms_norm_eps, json::NumberOr(object, "rms_norm_eps", 1e-6));
  TEMPER_ASSIGN_OR_RETURN(config.initializer_range,
                          json::NumberOr(object, "initializer_range", 0.02));
  return absl::OkStatus();
}

absl::Status ReadArchitecture(const json::Value& object, ModelConfig& config) {
  const json::Value& architectures = json::Member(object, "architectures");
  if (!architectures.is_array() || architectures.size() != 1 || !architectures[0].is_string()) {
    return absl::InvalidArgumentError("field \"architectures\" must name one architecture");
  }
  config.architecture = architectures[0].get<std::string>();
  config.qkv_bias = config.architecture == "Qwen2ForCausalLM";
  config.qk_norm = config.architecture == "Qwen3ForCausalLM";
  if (!config.qkv_bias && !config.qk_norm && config.architecture != "LlamaForCausalLM") {
    return absl::InvalidArgumentError(
        base::Cat("architecture ", config.architecture,
                  " is not supported (Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM are)"));
  }
  return absl::OkStatus();
}

absl::Status RefuseUnsupportedFields(const json::Value& object) {
  TEMPER_RETURN_IF_ERROR(RefuseTrue(object, "use_sliding_window"));
  TEMPER_RETURN_IF_ERROR(RefuseTrue(object, "attention_bias"));
  TEMPER_RETURN_IF_ERROR(RefuseTrue(object, "mlp_bias"));
  TEMPER_ASSIGN_OR_RETURN(const std::string act, json::StringOr(object, "hidden_act", "silu"));
  if (act != "silu") return Unsupported(base::Cat("activation ", act));
  TEMPER_ASSIGN_OR_RETURN(const double tp, json::NumberOr(object, "pretraining_tp", 1.0));
  if (tp != 1.0) return Unsupported("pretraining_tp");
  if (!json::Member(object, "quantization_config").is_null()) {
    return Unsupported("quantization_config");
  }
  return absl::OkStatus();
}

absl::Status CheckSize(std::string_view name, int64_t value, int64_t maximum) {
  if (value >= 1 && value <= maximum) return absl::OkStatus();
  return absl::InvalidArgumentError(
      base::Cat("field \"", name, "\" must be 1 to ", maximum, ", not ", value));
}

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& config) {
  TEMPER_RETURN_IF_ERROR(CheckSize("vocab_size", config.vocab_size, kMaxSize));
  TEMPER_RETURN_IF_ERROR(CheckSize("hidden_size", config.hidden_size, kMaxSize));
  TEMPER_RETURN_IF_ERROR(CheckSize("num_hidden_layers", config.num_layers, kMaxLayers));
  TEMPER_RETURN_IF_ERROR(CheckSize("num_attention_heads", config.num_heads, kMaxSize));
  TEMPER_RETURN_IF_ERROR(CheckSize("num_key_value_heads", config.num_kv_heads, config.num_heads));
  TEMPER_RETURN_IF_ERROR(CheckSize("head_dim", config.head_dim, kMaxSize));
  TEMPER_RETURN_IF_ERROR(CheckSize("intermediate_size", config.intermediate_size, kMaxSize));
  TEMPER_RETURN_IF_ERROR(
      CheckSize("max_position_embeddings", config.max_position_embeddings, kMaxSize));
  if (config.num_heads % config.num_kv_heads != 0) {
    return absl::InvalidArgumentError(base::Cat("num_key_value_heads ", config.num_kv_heads,
                                                " does not divide num_attention_heads ",
                                                config.num_heads));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        base::Cat("head_dim must be even for RoPE, not ", config.head_dim));
  }
  if (!(config.rms_norm_eps > 0 && config.rms_norm_eps < 1)) {
    return absl::InvalidArgumentError(
        base::Cat("field \"rms_norm_eps\" must lie in (0, 1), not ", config.rms_norm_eps));
  }
  if (!(config.rope_theta >= 1 && std::isfinite(config.rope_theta))) {
    return absl::InvalidArgumentError(
        base::Cat("field \"rope_theta\" must be at least 1, not ", config.rope_theta));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value object, json::ParseObject(config_json, "config.json"));
  ModelConfig config;
  TEMPER_RETURN_IF_ERROR(ReadArchitecture(object, config));
  TEMPER_RETURN_IF_ERROR(RefuseUnsupportedFields(object));
  TEMPER_RETURN_IF_ERROR(ReadSizes(object, config));
  TEMPER_RETURN_IF_ERROR(ReadRope(object, config));
  TEMPER_ASSIGN_OR_RETURN(config.tie_word_embeddings,
                          json::BoolOr(object, "tie_word_embeddings", false));
  TEMPER_RETURN_IF_ERROR(ReadOneTokenId(object, "bos_token_id", config.bos_token_id));
  TEMPER_RETURN_IF_ERROR(ReadOneTokenId(object, "pad_token_id", config.pad_token_id));
  TEMPER_RETURN_IF_ERROR(AppendTokenIds(object, "eos_token_id", config.eos_token_ids));
  TEMPER_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

std::string ModelConfigToJson(const ModelConfig& config, std::string_view torch_dtype) {
  json::Value object = {
      {"architectures", {config.architecture}},
      {"attention_dropout", 0.0},
      {"head_dim", config.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", config.hidden_size},
      {"initializer_range", config.initializer_range},
      {"intermediate_size", config.intermediate_size},
      {"max_position_embeddings", config.max_position_embeddings},
      {"num_attention_heads", config.num_heads},
      {"num_hidden_layers", config.num_layers},
      {"num_key_value_heads", config.num_kv_heads},
      {"rms_norm_eps", config.rms_norm_eps},
      {"rope_theta", config.rope_theta},
      {"tie_word_embeddings", config.tie_word_embeddings},
      {"torch_dtype", torch_dtype},
      {"use_cache", true},
      {"vocab_size", config.vocab_size},
  };
  object["model_type"] = config.architecture == "Qwen2ForCausalLM"   ? "qwen2"
                         : config.architecture == "Qwen3ForCausalLM" ? "qwen3"
                                                                     : "llama";
  if (config.architecture == "LlamaForCausalLM") {
    object["attention_bias"] = false;
    object["mlp_bias"] = false;
  } else {
    object["use_sliding_window"] = false;
  }
  if (config.bos_token_id >= 0) object["bos_token_id"] = config.bos_token_id;
  if (config.pad_token_id >= 0) object["pad_token_id"] = config.pad_token_id;
  if (config.eos_token_ids.size() == 1) object["eos_token_id"] = config.eos_token_ids.front();
  if (config.eos_token_ids.size() > 1) object["eos_token_id"] = config.eos_token_ids;
  return base::Cat(object.dump(2), "\n");
}

absl::Status MergeGenerationConfig(std::string_view generation_config_json, ModelConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value object,
                          json::ParseObject(generation_config_json, "generation_config.json"));
  TEMPER_RETURN_IF_ERROR(AppendTokenIds(object, "eos_token_id", config.eos_token_ids));
  if (config.pad_token_id < 0) {
    TEMPER_RETURN_IF_ERROR(ReadOneTokenId(object, "pad_token_id", config.pad_token_id));
  }
  return absl::OkStatus();
}

}  // namespace temper::model
