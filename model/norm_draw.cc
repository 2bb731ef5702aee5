#include "model/norm_draw.h"

#include <utility>

#include "services/base/check.h"

namespace temper::model {
namespace {

using numerics::Operator;

constexpr size_t kSlotsPerLayer = 4;

}  // namespace

size_t NormSlots(int num_layers) { return kSlotsPerLayer * static_cast<size_t>(num_layers) + 1; }

size_t NormSlot(Operator norm, int layer, int num_layers) {
  if (layer < 0) return NormSlots(num_layers) - 1;
  const size_t first = kSlotsPerLayer * static_cast<size_t>(layer);
  switch (norm) {
    case Operator::kInputNorm:
      return first;
    case Operator::kQNorm:
      return first + 1;
    case Operator::kKNorm:
      return first + 2;
    default:
      TEMPER_CHECK(norm == Operator::kPostAttentionNorm, "an operator that is a layer's norm");
      return first + 3;
  }
}

NormDraw DrawNorms(const CleanNorms& clean, int num_layers, const numerics::VersionAqn& aqn,
                   uint64_t key, numerics::AqnReport* report) {
  const numerics::AqnDraw draw = {.key = key, .sigma = aqn.sigma, .mode = aqn.plan->sigma_mode};
  NormDraw drawn;
  drawn.norms.resize(clean.size());
  for (const numerics::AqnTarget& norm :
       numerics::AqnNorms({.num_layers = num_layers, .qk_norm = true})) {
    const size_t slot = NormSlot(norm.op, norm.layer, num_layers);
    if (clean[slot].empty()) continue;
    const double multiplier = numerics::AqnMultiplier(*aqn.plan, norm, num_layers, aqn.step);
    std::vector<float> gamma(clean[slot].size());
    numerics::ApplyAqn(clean[slot], gamma, norm, draw, multiplier, report);
    if (!(multiplier > 0.0)) continue;
    drawn.norms[slot].perturbation = ComparePerturbed(clean[slot], gamma);
    drawn.norms[slot].gamma = std::move(gamma);
  }
  return drawn;
}

}  // namespace temper::model
