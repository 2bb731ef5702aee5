#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"
#include "weights/weight_version.h"

namespace temper::rollout_worker {

// The decode engine on CPU with `rollout.threads` threads, for the model of `setup` (which outlives
// it). member_id: the worker's, which names its draws of AQN per worker and stands in the groups it
// submits. Tensors arrive as float32 or bfloat16 and are computed with in float32.
// base: the frozen base where versions carry adapters (setup.lora), of which a copy is kept; null
// otherwise. Errors: those of model::DecodeEngine::Create; InvalidArgument if `base` is not of the
// setup's model, or missing.
absl::StatusOr<std::unique_ptr<Sampler>> MakeEngineSampler(
    const RunSetup& setup, std::string_view member_id,
    const weights::WeightVersion* base = nullptr);

}  // namespace temper::rollout_worker
