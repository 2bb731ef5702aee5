#pragma once

// One version's weights in the form the decode engine reads: packed matrices, and the norms clean
// and under AQN. Immutable once made; shared by the engine and the requests that still use it.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/decode_adapter.h"
#include "model/decode_engine.h"
#include "model/injected_weights.h"
#include "model/norm_draw.h"
#include "model/parameters.h"
#include "numerics/aqn_draw.h"
#include "numerics/gemm.h"

namespace temper::model {

struct DecodeLayer {
  numerics::PackedMatrix qkv;   // q, k and v one below the other
  std::vector<float> qkv_bias;  // empty: none
  numerics::PackedMatrix o;
  numerics::PackedMatrix gate_up;  // gate, then up
  numerics::PackedMatrix down;
};

// Not movable: `aqn` points into it.
struct DecodeWeights {
  DecodeWeights() = default;
  DecodeWeights(const DecodeWeights&) = delete;
  DecodeWeights& operator=(const DecodeWeights&) = delete;

  ModelConfig config;
  uint64_t version = 0;
  numerics::AqnPlan aqn_plan;
  numerics::VersionAqn aqn;
  numerics::AqnReport aqn_report;
  // The draw that all groups share: per version, or this worker's. Without AQN there is none, nor
  // where each group has its own.
  std::optional<NormDraw> shared_norms;
  std::vector<DecodeLayer> layers;
  std::vector<std::vector<float>> clean_norms;  // by NormSlot; empty: the model has no such norm
  numerics::PackedMatrix lm_head;
  DecodeAdapters adapters;
  std::vector<float> embedding;  // [vocab, hidden]; empty where lm_head is tied
  // As the rollouts multiply them, made when the version is installed; null without injection.
  std::shared_ptr<const InjectedWeights> injected;

  // Copies the embedding of a token to x: [hidden].
  void Embed(int32_t token, float* x) const;
  // The draw of `aqn`, which acts, under a key of it; report: as DrawNorms.
  NormDraw DrawNormsWith(uint64_t key, numerics::AqnReport* report) const;
};

// Errors: as InjectWeights. Parameters must have the names of ExpectedTensors(parameters.config).
absl::StatusOr<std::shared_ptr<const DecodeWeights>> PackForDecoding(
    const Parameters& parameters, uint64_t version, const AqnInstall& aqn,
    const InjectionInstall& injection);

}  // namespace temper::model
