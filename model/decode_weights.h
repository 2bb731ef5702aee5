#pragma once

// One version's weights in the form the decode engine reads: packed matrices, and the norms clean
// and under AQN. Immutable once made; shared by the engine and the requests that still use it.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "model/decode_adapter.h"
#include "model/decode_engine.h"
#include "model/injected_weights.h"
#include "model/noise_context.h"
#include "model/parameters.h"
#include "numerics/aqn.h"
#include "numerics/gemm.h"

namespace temper::model {

// A norm's weight, clean and with this version's AQN.
struct DecodeNorm {
  std::vector<float> gamma[2];    // [0] clean, [1] perturbed
  NormPerturbation perturbation;  // of gamma[1]; nothing where this version has no AQN
};

struct DecodeLayer {
  DecodeNorm input_norm;
  DecodeNorm post_attention_norm;
  numerics::PackedMatrix qkv;   // q, k and v one below the other
  std::vector<float> qkv_bias;  // empty: none
  std::vector<float> q_norm;    // [head_dim]; empty: none
  std::vector<float> k_norm;
  numerics::PackedMatrix o;
  numerics::PackedMatrix gate_up;  // gate, then up
  numerics::PackedMatrix down;
};

struct DecodeWeights {
  ModelConfig config;
  uint64_t version = 0;
  numerics::AqnReport aqn;
  std::vector<DecodeLayer> layers;
  DecodeNorm final_norm;
  numerics::PackedMatrix lm_head;
  DecodeAdapters adapters;
  std::vector<float> embedding;  // [vocab, hidden]; empty where lm_head is tied
  // As the rollouts multiply them, made when the version is installed; null without injection.
  std::shared_ptr<const InjectedWeights> injected;

  // Copies the embedding of a token to x: [hidden].
  void Embed(int32_t token, float* x) const;
};

// Errors: Unimplemented for AQN draws other than per version; as InjectWeights. Parameters must
// have the names of ExpectedTensors(parameters.config).
absl::StatusOr<std::shared_ptr<const DecodeWeights>> PackForDecoding(
    const Parameters& parameters, uint64_t version, const AqnInstall& aqn,
    const InjectionInstall& injection);

}  // namespace temper::model
