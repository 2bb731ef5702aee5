#pragma once

// What the worker needs of an engine: install a version, sample with it. The real one is
// EngineSampler (engine_sampler.h); tests bring one that needs no model.

#include "absl/status/statusor.h"
#include "model/decode_engine.h"
#include "numerics/aqn_draw.h"
#include "weights/weight_version.h"

namespace temper::rollout_worker {

// One thread calls Install and Installed, one calls Generate, at any time relative to each other.
class Sampler {
 public:
  virtual ~Sampler() = default;

  // Copies a verified version into the engine's shadow, with the AQN its manifest directs. Returns
  // what was done to the norms. Errors: those of model::DecodeEngine::Install; InvalidArgument if
  // the version's tensors are not the model's: nothing is installed then. FailedPrecondition if the
  // manifest directs a sigma > 0 and no norm was changed by it: it must not be sampled with.
  virtual absl::StatusOr<numerics::AqnReport> Install(const weights::WeightVersion& version) = 0;

  // What the last Install made, to be named in GenerateHooks::weights; null before the first.
  virtual model::InstalledWeights Installed() const = 0;

  // As model::DecodeEngine::Generate.
  virtual absl::StatusOr<model::GenerateResult> Generate(const model::GenerateRequest& request,
                                                         const model::GenerateHooks& hooks) = 0;
};

}  // namespace temper::rollout_worker
