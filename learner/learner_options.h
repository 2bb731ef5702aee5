#pragma once

// A run's configuration as the learner's own types.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "learner/adamw.h"
#include "learner/admission.h"
#include "learner/batch_former.h"
#include "learner/dapo_objective.h"
#include "model/io/lora_spec.h"
#include "model/io/model_config.h"
#include "numerics/aqn.h"
#include "numerics/noise_policy.h"
#include "temper/v1/config.pb.h"

namespace temper::learner {

// Everything the learner reads from a configuration. Plain values.
struct LearnerOptions {
  std::string run_dir;
  uint64_t seed = 1;
  bool fresh_weights =
      false;  // supervised training starts from fresh weights whatever the model has
  std::string model_path;
  model::LoraSpec lora;       // adapters that are trained; without modules the whole model is
  std::string adapter_start;  // PEFT directory they begin with; empty: fresh ones
  uint64_t config_fingerprint = 0;
  AdmissionRules admission;  // run_id is filled in by whoever joined
  BatchRules batch;
  DapoRules dapo;
  uint32_t minibatches_per_step = 1;
  int64_t micro_batch_tokens = 0;
  uint64_t gap_probe_every = 0;   // steps; 0: never
  uint32_t gap_probe_groups = 0;  // of one probe, at most
  uint64_t total_updates = 0;
  AdamWOptions adamw;
  double learning_rate = 0.0;
  double max_grad_norm = 0.0;
  int64_t warmup_steps = 0;
  int threads = 1;
  double temperature = 1.0;
  numerics::NoisePolicy noise;
  numerics::AqnPlan aqn;
  uint64_t noise_id = 0;
  uint64_t bucket_bytes = 0;
  uint32_t chunk_bytes = 0;
  uint64_t checkpoint_every = 0;  // 0: the last step only
  uint32_t checkpoint_keep = 0;   // 0: all
};

// config: resolved. model: shape of the policy. Errors: InvalidArgument, a mistake a line: names
// that mean nothing, a KL coefficient (there is no reference model to measure against), and what
// the noise plans and model::MakeLoraSpec refuse.
absl::StatusOr<LearnerOptions> LearnerOptionsFromConfig(const v1::RunConfig& config,
                                                        const model::ModelConfig& model);

}  // namespace temper::learner
