#pragma once

// The shape of a model: what a Hugging Face config.json (or GGUF metadata) says, typed and checked.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model {

// One decoder-only transformer: RMSNorm, RoPE (half-split pairs, as Hugging Face stores them),
// grouped-query attention, SwiGLU with SiLU, no bias but `qkv_bias`.
struct ModelConfig {
  // "Qwen2ForCausalLM", "Qwen3ForCausalLM" or "LlamaForCausalLM".
  std::string architecture;
  int64_t vocab_size = 0;   // rows of the embedding; may exceed the tokenizer's vocabulary
  int64_t hidden_size = 0;  // width of the residual stream
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // query heads
  int64_t num_kv_heads = 0;  // divides num_heads
  int64_t head_dim = 0;      // even; num_heads * head_dim need not be hidden_size
  int64_t intermediate_size = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;  // lm_head is the embedding; then no lm_head.weight exists
  bool qkv_bias = false;             // q_proj, k_proj, v_proj have a bias (Qwen2)
  bool qk_norm = false;              // RMSNorm over head_dim on q and k before RoPE (Qwen3)
  int64_t max_position_embeddings = 0;
  int32_t bos_token_id = -1;           // -1: none
  std::vector<int32_t> eos_token_ids;  // generation ends at any of these; may be empty
  int32_t pad_token_id = -1;           // -1: none
  double initializer_range = 0.02;     // standard deviation of freshly drawn weights

  bool operator==(const ModelConfig&) const = default;
};

// Reads the text of a config.json.
// Errors: DataLoss if it is not JSON; InvalidArgument if it lacks a field, has one out of range
// (every size is 1 .. 2^31, layers <= 1022 because the noise keys have 10 bits of layer), or uses
// what is not supported, named in the message: another architecture, rope scaling, sliding windows
// that are in use, an activation other than silu, biases other than q/k/v, quantized weights.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json);

// The inverse: text that `transformers` 4 and 5 open. torch_dtype names the stored type ("float32",
// "bfloat16").
std::string ModelConfigToJson(const ModelConfig& config, std::string_view torch_dtype = "float32");

// Adds the end and padding ids of a generation_config.json to `config` (union, order kept).
// Errors: DataLoss if the text is not JSON; InvalidArgument for an id that is not an integer.
absl::Status MergeGenerationConfig(std::string_view generation_config_json, ModelConfig& config);

// Checks ranges and relations of a configuration made in code. InvalidArgument names the field.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace temper::model
