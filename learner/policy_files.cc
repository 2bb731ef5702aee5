#include "learner/policy_files.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/adapter_parameters.h"
#include "model/io/loader.h"
#include "model/io/peft_adapter.h"
#include "model/parameters.h"
#include "services/base/files.h"
#include "services/base/hash.h"
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

absl::StatusOr<model::Parameters> ReadParameters(const std::string& model_path) {
  TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(model_path));
  return model::ParametersFromModel(loaded);
}

// `base` with the adapter in `dir`, which must be the one that was configured.
absl::StatusOr<model::Parameters> WithAdapterOf(const model::Parameters& base,
                                                const model::LoraSpec& lora,
                                                const std::string& dir) {
  TEMPER_ASSIGN_OR_RETURN(const model::PeftAdapter adapter,
                          model::ReadPeftAdapter(dir, base.config));
  if (!(adapter.spec == lora)) {
    return absl::InvalidArgumentError(absl::StrCat(
        dir, " adapts ", adapter.spec.modules.size(), " linears with rank ", adapter.spec.rank,
        " and alpha ", adapter.spec.alpha, ", trainer.lora says ", lora.modules.size(),
        " linears, rank ", lora.rank, ", alpha ", lora.alpha,
        adapter.spec.modules.size() == lora.modules.size() ? " (or other linears)" : ""));
  }
  return model::WithAdapter(base, lora, adapter.tensors);
}

// The weights that a run without checkpoint begins with.
absl::StatusOr<model::Parameters> FirstParameters(const LearnerOptions& options,
                                                  const std::string& model_path,
                                                  bool fresh_weights_allowed) {
  if (options.lora.enabled()) {
    TEMPER_ASSIGN_OR_RETURN(const model::Parameters base, ReadParameters(model_path));
    return options.adapter_start.empty() ? model::WithFreshAdapter(base, options.lora, options.seed)
                                         : WithAdapterOf(base, options.lora, options.adapter_start);
  }
  if (fresh_weights_allowed && (options.fresh_weights || HasNoWeights(model_path))) {
    TEMPER_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadModelConfig(model_path));
    return model::InitializeParameters(config, options.seed);
  }
  return ReadParameters(model_path);
}

// The weights of a checkpoint.
absl::StatusOr<model::Parameters> CheckpointParameters(const LearnerOptions& options,
                                                       const std::string& model_path,
                                                       const LoadedCheckpoint& loaded) {
  if (!options.lora.enabled()) return model::ParametersFromModel(loaded.model);
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters base, ReadParameters(model_path));
  const uint64_t hash = model::HashParameters(base);
  if (hash != loaded.base_hash) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the weights of ", model_path, " have hash ", base::HexDigest(hash), ", the adapters in ",
        loaded.adapter_dir, " were trained on those of hash ", base::HexDigest(loaded.base_hash)));
  }
  return WithAdapterOf(base, options.lora, loaded.adapter_dir);
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
                            CheckpointParameters(options, model_path, loaded));
    TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<PolicyTrainer> trainer,
                            PolicyTrainer::Create(parameters, TrainerOptionsOf(options)));
    TEMPER_RETURN_IF_ERROR(trainer->Restore(std::move(loaded.moments), loaded.state));
    if (last_commit != nullptr && loaded.has_commit) *last_commit = std::move(loaded.commit);
    base::LogInfo("checkpoint_read", {{"path", checkpoint}, {"step", loaded.state.step}});
    return trainer;
  }
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters,
                          FirstParameters(options, model_path, fresh_weights_allowed));
  return PolicyTrainer::Create(parameters, TrainerOptionsOf(options));
}

CheckpointContents ContentsOf(const PolicyTrainer& trainer, const LearnerOptions& options,
                              const model::Tokenizer& tokenizer, const std::string& chat_template) {
  const model::Parameters& parameters = trainer.parameters();
  CheckpointContents contents = {.moments = &trainer.optimizer().moments(),
                                 .state = trainer.state(),
                                 .config_fingerprint = options.config_fingerprint};
  if (parameters.lora.enabled()) {
    contents.adapter = {.views = {.spec = parameters.lora,
                                  .tensors = model::TrainedViewsOf(parameters),
                                  .base_model = options.model_path},
                        .num_layers = parameters.config.num_layers,
                        .base_hash = model::HashParameters(parameters)};
  } else {
    contents.model = {.config = parameters.config,
                      .tensors = model::ViewsOf(parameters),
                      .tokenizer_json = tokenizer.ToTokenizerJson(),
                      .chat_template = chat_template};
  }
  return contents;
}

}  // namespace temper::learner
