#include "learner/learner_options.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "services/base/status_macros.h"
#include "services/config/lora_selection.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"

namespace temper::learner {
namespace {

// Finds `name` in a short table; adds a mistake and returns the first value if it is not there.
template <typename T>
T Choose(absl::string_view key, const std::string& name,
         std::initializer_list<std::pair<const char*, T>> choices,
         std::vector<std::string>* mistakes) {
  std::vector<std::string> known;
  for (const auto& [known_name, value] : choices) {
    if (name == known_name) return value;
    known.emplace_back(known_name);
  }
  mistakes->push_back(absl::StrCat(key, ": '", name, "' is none of ", absl::StrJoin(known, ", ")));
  return choices.begin()->second;
}

DapoRules RulesOf(const v1::RunConfig& config, std::vector<std::string>* mistakes) {
  const v1::DapoConfig& dapo = config.trainer().dapo();
  DapoRules rules;
  rules.surrogate = {.clip_ratio_low = dapo.clip_ratio_low(),
                     .clip_ratio_high = dapo.clip_ratio_high(),
                     .dual_clip = dapo.dual_clip()};
  using Mode = numerics::ImportanceMode;
  rules.importance.mode = Choose<Mode>(
      "trainer.dapo.importance_sampling", dapo.importance_sampling(),
      {{"token", Mode::kToken}, {"sequence", Mode::kSequence}, {"none", Mode::kNone}}, mistakes);
  rules.importance.cap = dapo.importance_cap();
  rules.old_logprob = Choose<OldLogprob>("trainer.dapo.old_logprob", dapo.old_logprob(),
                                         {{"current", OldLogprob::kCurrent},
                                          {"recomputed", OldLogprob::kRecomputed},
                                          {"recorded", OldLogprob::kRecorded}},
                                         mistakes);
  rules.aggregation =
      Choose<LossAggregation>("trainer.dapo.loss_aggregation", dapo.loss_aggregation(),
                              {{"token-mean", LossAggregation::kTokenMean},
                               {"seq-mean-token-sum", LossAggregation::kSeqMeanTokenSum},
                               {"seq-mean-token-mean", LossAggregation::kSeqMeanTokenMean},
                               {"constant", LossAggregation::kConstant}},
                              mistakes);
  rules.norm_by_std = dapo.norm_by_std();
  rules.mask_truncated = dapo.mask_truncated();
  rules.max_completion_tokens = static_cast<int>(config.rollout().max_completion_tokens());
  if (dapo.kl_coefficient() != 0.0) {
    mistakes->push_back(absl::StrCat("trainer.dapo.kl_coefficient: ", dapo.kl_coefficient(),
                                     " needs a reference model, which this learner does not keep; "
                                     "use 0"));
  }
  return rules;
}

void CopyTrainer(const v1::RunConfig& config, LearnerOptions* options) {
  const v1::TrainerConfig& trainer = config.trainer();
  const v1::OptimizerConfig& optimizer = trainer.optimizer();
  options->minibatches_per_step = trainer.minibatches_per_step();
  options->micro_batch_tokens = trainer.micro_batch_tokens();
  options->gap_probe_every = trainer.gap_probe_every();
  options->gap_probe_groups = trainer.gap_probe_groups();
  options->total_updates = trainer.total_updates();
  options->adamw = {.beta1 = optimizer.beta1(),
                    .beta2 = optimizer.beta2(),
                    .epsilon = optimizer.epsilon(),
                    .weight_decay = optimizer.weight_decay()};
  options->learning_rate = optimizer.learning_rate();
  options->max_grad_norm = optimizer.max_grad_norm();
  options->warmup_steps = optimizer.warmup_steps();
  options->threads = static_cast<int>(trainer.threads());
  options->temperature = config.rollout().temperature();
  options->batch = {.groups_per_step = static_cast<int>(trainer.groups_per_step()),
                    .max_staleness = trainer.max_staleness()};
}

}  // namespace

absl::StatusOr<LearnerOptions> LearnerOptionsFromConfig(const v1::RunConfig& config,
                                                        const model::ModelConfig& model) {
  LearnerOptions options;
  std::vector<std::string> mistakes;
  options.run_dir = config.run_dir();
  options.seed = config.seed();
  options.fresh_weights = config.trainer().sft().fresh_weights();
  options.config_fingerprint = config::Fingerprint(config);
  CopyTrainer(config, &options);
  options.dapo = RulesOf(config, &mistakes);
  options.model_path = config.model().path();
  options.adapter_start = config.trainer().lora().adapter();
  TEMPER_ASSIGN_OR_RETURN(options.lora,
                          model::MakeLoraSpec(model, config::LoraSelectionFromConfig(config)));
  const numerics::ModelShape shape = model::NoiseShape(model, options.lora);
  TEMPER_ASSIGN_OR_RETURN(options.noise, config::NoisePolicyFromConfig(config, shape));
  TEMPER_ASSIGN_OR_RETURN(options.aqn, config::AqnPlanFromConfig(config, shape));
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  options.noise_id = config::NoiseId(options.noise, options.aqn);
  options.admission = {
      .seed = config.seed(),
      .noise_id = options.noise_id,
      .samples_per_group = static_cast<int>(config.rollout().samples_per_group()),
      .max_prompt_tokens = static_cast<int>(config.rollout().max_prompt_tokens()),
      .max_completion_tokens = static_cast<int>(config.rollout().max_completion_tokens()),
      .vocab_size = model.vocab_size,
      .max_staleness = options.batch.max_staleness,
      .aqn = options.aqn,
      .dynamic_sampling = config.trainer().dapo().dynamic_sampling()};
  options.bucket_bytes = config.weights().bucket_bytes();
  options.chunk_bytes = config.weights().chunk_bytes();
  options.checkpoint_every = config.checkpoint().every();
  options.checkpoint_keep = config.checkpoint().keep();
  return options;
}

}  // namespace temper::learner
