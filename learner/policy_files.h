#pragma once

// From files to a policy that can be trained.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "learner/checkpoint.h"
#include "learner/learner_options.h"
#include "learner/policy_trainer.h"
#include "model/io/model_files.h"
#include "temper/v1/config.pb.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::learner {

// What is read of a model besides its weights. The parts are read from the texts, as the workers'
// are, which get the texts from here: so all of a run have the same.
struct PolicyFiles {
  model::ModelFiles texts;
  model::ModelParts parts;  // the chat template is plain where model.chat_template says so
};

// Errors: those of model/io/model_files.h; NotFound, naming model.path, if it is not on this host.
absl::StatusOr<PolicyFiles> ReadPolicyFiles(const v1::ModelConfig& config);

// A trainer with the weights of `model_path`, or, with `checkpoint` (not empty), with weights,
// moments and numbers of that checkpoint, whose commit goes to `last_commit` (may be null). With
// options.lora the weights of `model_path` are the frozen base in both cases, and the adapters are
// the checkpoint's, those of options.adapter_start, or fresh ones.
// fresh_weights_allowed: a directory without weights, or options.fresh_weights, gives fresh ones
// drawn with the run's seed; otherwise missing weights are NotFound. Errors: those of LoadModel,
// ReadCheckpoint and ReadPeftAdapter; InvalidArgument for an adapter_start of another shape;
// FailedPrecondition if the base is not the one that the checkpoint's adapters were trained on.
absl::StatusOr<std::unique_ptr<PolicyTrainer>> MakeTrainer(
    const LearnerOptions& options, const std::string& model_path, const std::string& checkpoint,
    bool fresh_weights_allowed, std::optional<v1::CommitStepRequest>* last_commit);

// What a checkpoint holds of `trainer`, but for commit and ledger. Views into it.
CheckpointContents ContentsOf(const PolicyTrainer& trainer, const LearnerOptions& options,
                              const model::Tokenizer& tokenizer, const std::string& chat_template);

}  // namespace temper::learner
