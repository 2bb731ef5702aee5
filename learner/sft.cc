#include "learner/sft.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "learner/checkpoint.h"
#include "learner/learner_options.h"
#include "learner/policy_files.h"
#include "learner/policy_trainer.h"
#include "nlohmann/json.hpp"
#include "prompts/dataset_config.h"
#include "prompts/prompt_source.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// What one optimizer step of cross-entropy did.
struct SftStep {
  double loss = 0.0;  // nats per token
  int64_t tokens = 0;
  OptimizerStepResult optimizer;
};

class SftRun {
 public:
  SftRun(const SftOptions& options, LearnerOptions learner, PolicyFiles files,
         std::unique_ptr<PolicyTrainer> trainer, std::unique_ptr<prompts::PromptSource> problems)
      : options_(options),
        learner_(std::move(learner)),
        files_(std::move(files)),
        trainer_(std::move(trainer)),
        problems_(std::move(problems)) {}

  absl::Status Run();

 private:
  absl::StatusOr<std::vector<model::TrainGroup>> ProblemsOf(uint64_t step) const;
  absl::StatusOr<SftStep> Step(const std::vector<model::TrainGroup>& problems);
  void LogStep(const SftStep& step, double seconds) const;
  absl::Status Checkpoint();
  bool Stopped() const { return options_.stop != nullptr && options_.stop->StopRequested(); }

  const SftOptions& options_;
  const LearnerOptions learner_;
  const PolicyFiles files_;
  const std::unique_ptr<PolicyTrainer> trainer_;
  const std::unique_ptr<prompts::PromptSource> problems_;
  numerics::NoiseCounters counters_;
  uint64_t checkpointed_step_ = 0;
};

absl::StatusOr<std::vector<model::TrainGroup>> SftRun::ProblemsOf(uint64_t step) const {
  const uint64_t count = options_.config.trainer().sft().problems_per_step();
  // As the rollout worker encodes its prompts.
  const bool parse_special = files_.parts.chat_template.kind != model::ChatTemplate::Kind::kPlain;
  std::vector<model::TrainGroup> groups;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t index = step * count + i;
    if (problems_->size().has_value()) index %= *problems_->size();
    TEMPER_ASSIGN_OR_RETURN(const prompts::Problem problem, problems_->Get(index));
    TEMPER_ASSIGN_OR_RETURN(const std::string prompt,
                            model::RenderPrompt(files_.parts.chat_template, problem.prompt));
    model::TrainGroup group;
    group.group_index = step * count + i;
    TEMPER_ASSIGN_OR_RETURN(group.prompt_ids,
                            files_.parts.tokenizer->Encode(prompt, parse_special));
    TEMPER_ASSIGN_OR_RETURN(
        std::vector<int32_t> solution,
        files_.parts.tokenizer->Encode(problem.answer_text, /*parse_special=*/false));
    solution.push_back(trainer_->parameters().config.eos_token_ids.front());
    group.completions.push_back({.sample = 0, .token_ids = std::move(solution)});
    groups.push_back(std::move(group));
  }
  return groups;
}

absl::StatusOr<SftStep> SftRun::Step(const std::vector<model::TrainGroup>& problems) {
  SftStep step;
  for (const model::TrainGroup& group : problems) {
    step.tokens += static_cast<int64_t>(group.completions.front().token_ids.size());
  }
  const float weight = static_cast<float>(-1.0 / static_cast<double>(step.tokens));
  trainer_->BeginOptimizerStep();
  for (size_t begin = 0; begin < problems.size();) {
    size_t end = begin;
    int64_t rows = 0;
    while (end < problems.size()) {
      const int64_t more = static_cast<int64_t>(problems[end].prompt_ids.size() +
                                                problems[end].completions[0].token_ids.size());
      if (end > begin && rows + more > learner_.micro_batch_tokens) break;
      rows += more;
      ++end;
    }
    TEMPER_ASSIGN_OR_RETURN(
        const model::LogProbs pass,
        trainer_->Forward(std::span(problems).subspan(begin, end - begin), numerics::Phase::kTrain,
                          /*sampled_version=*/0, &counters_));
    const std::span<const float> logprobs = FloatsOf(pass.logprobs);
    for (const float logprob : logprobs) {
      step.loss -= static_cast<double>(logprob) / static_cast<double>(step.tokens);
    }
    const std::vector<float> weights(logprobs.size(), weight);
    TEMPER_RETURN_IF_ERROR(trainer_->Backward(pass, weights, &counters_));
    begin = end;
  }
  TEMPER_ASSIGN_OR_RETURN(step.optimizer, trainer_->FinishOptimizerStep(&counters_));
  return step;
}

void SftRun::LogStep(const SftStep& step, double seconds) const {
  const nlohmann::ordered_json line = {
      {"step", trainer_->state().step},
      {"loss", step.loss},
      {"perplexity", std::exp(step.loss)},
      {"tokens", step.tokens},
      {"grad_norm", step.optimizer.grad_norm},
      {"learning_rate", step.optimizer.learning_rate},
      {"skipped", !step.optimizer.applied},
      {"step_seconds", seconds},
      {"tokens_per_second", seconds > 0.0 ? static_cast<double>(step.tokens) / seconds : 0.0}};
  if (options_.log_line) options_.log_line(line.dump());
}

absl::Status SftRun::Checkpoint() {
  TEMPER_RETURN_IF_ERROR(WriteCheckpoint(
      learner_.run_dir,
      ContentsOf(*trainer_, learner_, *files_.parts.tokenizer, files_.parts.chat_template.source)));
  checkpointed_step_ = trainer_->state().step;
  base::LogInfo("checkpoint_written",
                {{"path", CheckpointPath(learner_.run_dir, checkpointed_step_)}});
  return PruneCheckpoints(learner_.run_dir, learner_.checkpoint_keep);
}

absl::Status SftRun::Run() {
  checkpointed_step_ = trainer_->state().step;
  while (trainer_->state().step < learner_.total_updates && !Stopped()) {
    const absl::Time began = absl::Now();
    TEMPER_ASSIGN_OR_RETURN(const std::vector<model::TrainGroup> problems,
                            ProblemsOf(trainer_->state().step));
    TEMPER_ASSIGN_OR_RETURN(const SftStep step, Step(problems));
    trainer_->CloseStep(!step.optimizer.applied);
    TEMPER_RETURN_IF_ERROR(numerics::CheckSeen(learner_.noise, counters_));
    const uint64_t done = trainer_->state().step;
    const bool last = done == learner_.total_updates;
    if (last || done % options_.log_every == 0) {
      LogStep(step, absl::ToDoubleSeconds(absl::Now() - began));
    }
    const uint64_t every = learner_.checkpoint_every;
    if (last || (every > 0 && done % every == 0)) TEMPER_RETURN_IF_ERROR(Checkpoint());
  }
  if (checkpointed_step_ == trainer_->state().step) return absl::OkStatus();
  return Checkpoint();
}

// No evaluation question is among the problems that are read.
absl::Status CheckNoLeak(const v1::RunConfig& config, const prompts::PromptSource& problems) {
  TEMPER_ASSIGN_OR_RETURN(
      const std::unique_ptr<prompts::PromptSource> evaluation,
      prompts::CreatePromptSource(prompts::DatasetOptionsFromConfig(config.dataset()),
                                  prompts::Split::kEval));
  const uint64_t read =
      config.trainer().total_updates() * config.trainer().sft().problems_per_step();
  // Evaluation takes the first questions of its split: 1,319 as GSM8K's test file, or as
  // configured.
  const uint64_t questions = std::max<uint64_t>(config.eval().questions(), 1319);
  return prompts::CheckSeparated(problems, read, *evaluation, questions);
}

}  // namespace

absl::Status RunStandaloneSft(const SftOptions& options) {
  const v1::RunConfig& config = options.config;
  TEMPER_ASSIGN_OR_RETURN(PolicyFiles files, ReadPolicyFiles(config.model()));
  TEMPER_ASSIGN_OR_RETURN(LearnerOptions learner,
                          LearnerOptionsFromConfig(config, files.parts.config));
  learner.temperature = 1.0;  // cross-entropy is of the model's own distribution
  if (files.parts.config.eos_token_ids.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("model.path: ", config.model().path(),
                                                   " names no end-of-sequence token to learn"));
  }
  TEMPER_ASSIGN_OR_RETURN(
      std::unique_ptr<prompts::PromptSource> problems,
      prompts::CreatePromptSource(prompts::DatasetOptionsFromConfig(config.dataset()),
                                  prompts::Split::kWarmStart));
  TEMPER_RETURN_IF_ERROR(CheckNoLeak(config, *problems));
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<PolicyTrainer> trainer,
                          MakeTrainer(learner, config.model().path(), options.resume_from,
                                      /*fresh_weights_allowed=*/true, /*last_commit=*/nullptr));
  SftRun run(options, std::move(learner), std::move(files), std::move(trainer),
             std::move(problems));
  return run.Run();
}

}  // namespace temper::learner
