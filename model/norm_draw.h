#pragma once

// The weights of a model's norms as one draw of AQN makes them. Both engines hold the clean weights
// and read these in their place; no clean weight is ever written. No LibTorch here.

#include <cstddef>
#include <span>
#include <vector>

#include "model/noise_context.h"
#include "numerics/aqn_draw.h"
#include "numerics/site.h"

namespace temper::model {

// Norms by place: four a layer (input, q, k, post-attention), then the final one.
size_t NormSlots(int num_layers);
size_t NormSlot(numerics::Operator norm, int layer, int num_layers);

// The clean weights of a model's norms by slot; empty where the model has no such norm.
using CleanNorms = std::vector<std::span<const float>>;

// A weight under AQN and what that did to it; empty where it stays clean.
struct DrawnNorm {
  std::vector<float> gamma;
  NormPerturbation perturbation;
};

// Immutable once made; by slot.
struct NormDraw {
  std::vector<DrawnNorm> norms;

  // The weight that acts in a slot whose clean one is `clean`.
  const float* Weight(size_t slot, const float* clean) const {
    return norms[slot].gamma.empty() ? clean : norms[slot].gamma.data();
  }
};

// Draws for every norm that the plan of `aqn` selects and the model has. aqn.acts(). key: aqn.Key.
// report: may be null; all norms of the model are added to it, those that stay clean as well.
NormDraw DrawNorms(const CleanNorms& clean, int num_layers, const numerics::VersionAqn& aqn,
                   uint64_t key, numerics::AqnReport* report);

}  // namespace temper::model
