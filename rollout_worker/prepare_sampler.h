#pragma once

// From a membership to an engine that waits for its first version.

#include <memory>

#include "absl/status/statusor.h"
#include "rollout_worker/model_pull.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"

namespace temper::rollout_worker {

// Brings what the run's model is into `*setup`, which outlives the sampler, and where the run
// trains adapters the frozen base with it. Errors: those of AwaitRunSetup, AwaitBase and
// MakeEngineSampler.
absl::StatusOr<std::unique_ptr<Sampler>> PrepareSampler(const ModelPullOptions& pull,
                                                        std::unique_ptr<RunSetup>* setup);

}  // namespace temper::rollout_worker
