#pragma once

// A small model with every option on, and an error policy, for the tests of this room.

#include <cstdint>
#include <vector>

#include "model/parameters.h"
#include "numerics/noise_policy.h"

namespace temper::model {

// Odd sizes on purpose: a head dimension and a vocabulary that are no multiples of 16.
inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  config.vocab_size = 83;
  config.hidden_size = 40;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 10;
  config.intermediate_size = 56;
  config.rms_norm_eps = 1e-6;
  config.tie_word_embeddings = true;
  config.qkv_bias = true;
  config.max_position_embeddings = 256;
  config.initializer_range = 0.3;
  return config;
}

// Weights of TinyConfig-like models, biases and norms off their initial values.
inline Parameters TinyParameters(const ModelConfig& config, uint64_t seed = 1) {
  Parameters parameters = InitializeParameters(config, seed).value();
  for (auto& [name, tensor] : parameters.named) {
    if (tensor.dim() != 1) continue;
    float* values = tensor.data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      values[i] += 0.1f * static_cast<float>((i * 7 + static_cast<int64_t>(seed)) % 5 - 2);
    }
  }
  return parameters;
}

inline numerics::NoisePolicy TinyPolicy(
    double scale, bool with_lm_head = false,
    numerics::ErrorGradient gradient = numerics::ErrorGradient::kPathwise) {
  numerics::NoiseSpec spec;
  spec.enabled = true;
  spec.error_scale = scale;
  spec.error_gradient = gradient;
  if (with_lm_head) {
    spec.target_modules = {"q", "k", "v", "o", "gate", "up", "down", "lm_head"};
  }
  return numerics::NoisePolicy::Create(spec, {.num_layers = 2}).value();
}

// A spec of each error type on every linear, lm_head too, strong enough to act on a tiny model.
inline std::vector<numerics::NoiseSpec> EveryErrorSpec() {
  using numerics::ErrorType;
  std::vector<numerics::NoiseSpec> specs(8);
  specs[0] = {.error_type = ErrorType::kRelativeGaussian, .error_scale = 0.1};
  specs[1] = {.error_type = ErrorType::kAbsoluteGaussian, .error_scale = 0.05};
  specs[2] = {.error_type = ErrorType::kSystematicBias, .error_scale = 0.05};
  specs[3] = {.error_type = ErrorType::kSystematicBias, .error_scale = 0.05, .relative = true};
  specs[4] = {.error_type = ErrorType::kTruncation, .error_scale = 0.02};
  specs[5] = {.error_type = ErrorType::kDeadzone, .deadzone_threshold = 0.2};
  specs[6] = {.error_type = ErrorType::kSaturation, .fault_magnitude = 0.2};
  specs[7] = {.error_type = ErrorType::kSpike, .fault_magnitude = 0.2, .spike_probability = 0.1};
  for (numerics::NoiseSpec& spec : specs) {
    spec.enabled = true;
    spec.target_modules = {"q", "k", "v", "o", "gate", "up", "down", "lm_head"};
  }
  return specs;
}

inline numerics::NoisePolicy PolicyOf(const numerics::NoiseSpec& spec) {
  return numerics::NoisePolicy::Create(spec, {.num_layers = 2}).value();
}

// An injection of each kind of error at each of its points, on every linear, lm_head too.
inline std::vector<numerics::InjectionSpec> EveryInjectionSpec() {
  using numerics::FormatSpec;
  using numerics::InjectionPoint;
  using numerics::NumberFormat;
  std::vector<numerics::InjectionSpec> specs;
  for (const auto point : {InjectionPoint::kInput, InjectionPoint::kOutput, InjectionPoint::kWeight,
                           InjectionPoint::kBoth}) {
    const auto add = [&](numerics::InjectionSpec spec) {
      spec.enabled = true;
      spec.point = point;
      spec.target_modules = {"q", "k", "v", "o", "gate", "up", "down", "lm_head"};
      specs.push_back(std::move(spec));
    };
    const bool weight = point == InjectionPoint::kWeight || point == InjectionPoint::kBoth;
    add({.format = FormatSpec{.format = NumberFormat::kMxfp4}});
    add({.format = FormatSpec{.format = NumberFormat::kNvfp4}});
    add({.format = FormatSpec{.format = NumberFormat::kFp8}});
    add({.format = FormatSpec{.format = NumberFormat::kMxfp4, .stochastic_rounding = true}});
    if (weight) add({.format = FormatSpec{.format = NumberFormat::kMxfp4, .block_2d = true}});
    for (const numerics::NoiseSpec& noise : EveryErrorSpec()) {
      const double strength = noise.error_scale + noise.deadzone_threshold + noise.fault_magnitude;
      add({.error = {.type = noise.error_type,
                     .strength = static_cast<float>(strength),
                     .relative = noise.relative,
                     .spike_probability = noise.spike_probability}});
    }
  }
  return specs;
}

// A policy of `noise` (no error by default) and an injection.
inline numerics::NoisePolicy InjectedPolicy(const numerics::InjectionSpec& injection,
                                            const numerics::NoiseSpec& noise = {}) {
  numerics::NoisePolicy policy = PolicyOf(noise);
  policy.set_injection(numerics::InjectionPolicy::Create(injection, {.num_layers = 2}).value());
  return policy;
}

// A prompt of `length` tokens.
inline std::vector<int32_t> TinyPrompt(int64_t length, int64_t vocab, int64_t salt = 0) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<int32_t>((i * 37 + salt * 11 + 5) % vocab));
  }
  return ids;
}

}  // namespace temper::model
