#pragma once

// Everything a worker derives from the run's configuration before it takes work. The weights are
// not part of it: they come later, version 0 included.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/lora_spec.h"
#include "model/io/model_files.h"
#include "numerics/aqn.h"
#include "numerics/noise_policy.h"
#include "temper/v1/config.pb.h"

namespace temper::rollout_worker {

// Immutable once made; shared by all threads of the worker.
struct RunSetup {
  std::string run_id;
  v1::RunConfig config;  // resolved: every scalar is set, paths are absolute
  model::ModelConfig model;
  std::unique_ptr<model::Tokenizer> tokenizer;
  model::ChatTemplate chat_template;
  model::LoraSpec lora;          // adapters that versions carry; without modules, whole models
  numerics::ModelShape shape;    // with the layers that have adapters
  numerics::NoisePolicy policy;  // of rollouts
  numerics::AqnPlan aqn;
  uint64_t noise_id = 0;          // fingerprint of both; every submitted group carries it
  uint64_t model_files_hash = 0;  // of the files it was made from; every manifest names it
  uint64_t base_hash = 0;  // base_weights_hash of the frozen base this worker holds; 0: none needed
  std::vector<int32_t> stop_ids;  // a completion ends after the first of these

  // Synchronous: a lease runs on exactly its version, with no swap inside.
  bool synchronous() const { return config.trainer().max_staleness() == 0; }
};

// Derives all of it from `config` and the model files, which come from the learner: nothing is read
// from this host's disk.
// Errors: those of model::ParseModelFiles; InvalidArgument if the noise blocks do not fit the
// model, or for a device this build does not have.
absl::StatusOr<std::unique_ptr<RunSetup>> MakeRunSetup(std::string run_id, v1::RunConfig config,
                                                       const model::ModelFiles& files);

// The prompt's ids for one user message, chat template applied.
// Errors: InvalidArgument for a message that cannot be rendered or encoded, or with more tokens
// than rollout.max_prompt_tokens (if not 0) or than the model has positions for.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const RunSetup& setup,
                                                  const std::string& message);

}  // namespace temper::rollout_worker
