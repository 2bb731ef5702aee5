#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"

namespace temper::rollout_worker {

// The decode engine on CPU with `rollout.threads` threads, for the model of `setup` (which outlives
// it). Tensors arrive as float32 or bfloat16 and are computed with in float32.
// Errors: those of model::DecodeEngine::Create.
absl::StatusOr<std::unique_ptr<Sampler>> MakeEngineSampler(const RunSetup& setup);

}  // namespace temper::rollout_worker
