#include "learner/policy_files.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "learner/checkpoint.h"
#include "model/io/loader.h"
#include "model/parameters.h"
#include "services/base/files.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// A Hugging Face directory that describes a model without holding one.
bool HasNoWeights(const std::string& path) {
  return base::PathExists(path + "/config.json") &&
         !base::PathExists(path + "/model.safetensors") &&
         !base::PathExists(path + "/model.safetensors.index.json");
}

PolicyTrainerOptions TrainerOptionsOf(const LearnerOptions& options) {
  return {.adamw = options.adamw,
          .learning_rate = options.learning_rate,
          .max_grad_norm = options.max_grad_norm,
          .warmup_steps = options.warmup_steps,
          .threads = options.threads,
          .temperature = options.temperature,
          .run_seed = options.seed,
          .noise = options.noise,
          .aqn = options.aqn};
}

}  // namespace

absl::StatusOr<PolicyFiles> ReadPolicyFiles(const v1::ModelConfig& config) {
  if (!base::PathExists(config.path())) {
    return absl::NotFoundError(absl::StrCat("model.path: ", config.path(),
                                            " is not on this host; the learner reads the model "
                                            "there (workers get it from the learner)"));
  }
  PolicyFiles files;
  const bool with_chat_template = config.chat_template() != "plain";
  TEMPER_ASSIGN_OR_RETURN(files.texts, model::LoadModelFiles(config.path(), with_chat_template));
  TEMPER_ASSIGN_OR_RETURN(files.parts, model::ParseModelFiles(files.texts));
  return files;
}

absl::StatusOr<std::unique_ptr<PolicyTrainer>> MakeTrainer(
    const LearnerOptions& options, const std::string& model_path, const std::string& checkpoint,
    bool fresh_weights_allowed, std::optional<v1::CommitStepRequest>* last_commit) {
  if (!checkpoint.empty()) {
    TEMPER_ASSIGN_OR_RETURN(LoadedCheckpoint loaded,
                            ReadCheckpoint(checkpoint, options.config_fingerprint));
    TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters,
                            model::ParametersFromModel(loaded.model));
    TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<PolicyTrainer> trainer,
                            PolicyTrainer::Create(parameters, TrainerOptionsOf(options)));
    TEMPER_RETURN_IF_ERROR(trainer->Restore(std::move(loaded.moments), loaded.state));
    if (last_commit != nullptr && loaded.has_commit) *last_commit = std::move(loaded.commit);
    base::LogInfo("checkpoint_read", {{"path", checkpoint}, {"step", loaded.state.step}});
    return trainer;
  }
  if (fresh_weights_allowed && (options.fresh_weights || HasNoWeights(model_path))) {
    TEMPER_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadModelConfig(model_path));
    TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters,
                            model::InitializeParameters(config, options.seed));
    return PolicyTrainer::Create(parameters, TrainerOptionsOf(options));
  }
  TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(model_path));
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters, model::ParametersFromModel(loaded));
  return PolicyTrainer::Create(parameters, TrainerOptionsOf(options));
}

}  // namespace temper::learner
