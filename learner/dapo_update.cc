#include "learner/dapo_update.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

// AQN in the learner's own norms is of one version. An error of g_x that is not linear acts on the
// sum over a group's samples at the positions of their prompt, which one pass has to form.
CutRules CutRulesOf(const PolicyTrainerOptions& options) {
  const bool errs = options.noise.Any(numerics::Phase::kTrain, numerics::Direction::kBackward);
  return {.one_version = options.aqn.enabled && options.aqn.in_learner,
          .whole_groups = errs && !options.noise.ErrorAt(1.0).linear()};
}

// One step's work, so that its parts share what they need.
class DapoStep {
 public:
  DapoStep(const DapoOptions& options, PolicyTrainer* trainer, base::StopToken* stop)
      : options_(options), trainer_(trainer), stop_(stop), cut_(CutRulesOf(trainer->options())) {}

  absl::Status RecomputeOldLogprobs(std::span<TrainSequence> sequences);
  absl::Status TrainMiniBatch(std::span<const TrainSequence> sequences);
  DapoStepResult TakeResult();

 private:
  std::vector<size_t> Cut(std::span<const TrainSequence> sequences) const {
    return CutMicroBatches(sequences, options_.micro_batch_tokens, cut_);
  }
  absl::Status CheckStop() const {
    if (stop_ == nullptr || !stop_->StopRequested()) return absl::OkStatus();
    return absl::CancelledError("stopped in the middle of an update");
  }
  absl::Status TrainMicroBatch(std::span<const TrainSequence> sequences,
                               std::span<const double> factors);

  const DapoOptions& options_;
  PolicyTrainer* const trainer_;
  base::StopToken* const stop_;
  const CutRules cut_;
  DapoStepResult result_;
  double grad_norm_sum_ = 0.0;
};

absl::Status DapoStep::RecomputeOldLogprobs(std::span<TrainSequence> sequences) {
  size_t begin = 0;
  for (const size_t end : Cut(sequences)) {
    TEMPER_RETURN_IF_ERROR(CheckStop());
    const std::span<TrainSequence> part = sequences.subspan(begin, end - begin);
    TEMPER_ASSIGN_OR_RETURN(const model::LogProbs pass,
                            trainer_->Forward(ModelInput(part), numerics::Phase::kOldLogprob,
                                              part.front().version, &result_.counters));
    std::span<const float> logprobs = FloatsOf(pass.logprobs);
    for (TrainSequence& sequence : part) {
      const std::span<const float> own = logprobs.first(sequence.completion.size());
      sequence.old_logprobs.assign(own.begin(), own.end());
      if (!sequence.masked) result_.gap.Add(own, sequence.rollout_logprobs);
      logprobs = logprobs.subspan(own.size());
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status DapoStep::TrainMicroBatch(std::span<const TrainSequence> sequences,
                                       std::span<const double> factors) {
  TEMPER_ASSIGN_OR_RETURN(const model::LogProbs pass,
                          trainer_->Forward(ModelInput(sequences), numerics::Phase::kTrain,
                                            sequences.front().version, &result_.counters));
  const std::span<const float> logprobs = FloatsOf(pass.logprobs);
  const std::span<const float> entropy = FloatsOf(pass.entropy);
  std::vector<float> weight(logprobs.size());
  size_t offset = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TrainSequence& sequence = sequences[i];
    const size_t tokens = sequence.completion.size();
    const std::span<const float> own = logprobs.subspan(offset, tokens);
    SequenceObjective(sequence, own, factors[i], options_.rules,
                      std::span<float>(weight).subspan(offset, tokens), &result_.objective);
    if (!sequence.masked) {
      for (size_t t = 0; t < tokens; ++t) result_.entropy_sum += entropy[offset + t];
      if (options_.rules.old_logprob != OldLogprob::kRecomputed) {
        result_.gap.Add(own, sequence.rollout_logprobs);
      }
    }
    offset += tokens;
  }
  return trainer_->Backward(pass, weight, &result_.counters);
}

absl::Status DapoStep::TrainMiniBatch(std::span<const TrainSequence> sequences) {
  int64_t unmasked = 0;
  const std::vector<double> factors = AggregationFactors(sequences, options_.rules, &unmasked);
  if (unmasked == 0) {
    ++result_.empty_minibatches;
    return absl::OkStatus();
  }
  trainer_->BeginOptimizerStep();
  size_t begin = 0;
  for (const size_t end : Cut(sequences)) {
    TEMPER_RETURN_IF_ERROR(CheckStop());
    TEMPER_RETURN_IF_ERROR(TrainMicroBatch(sequences.subspan(begin, end - begin),
                                           std::span(factors).subspan(begin, end - begin)));
    begin = end;
  }
  TEMPER_ASSIGN_OR_RETURN(const OptimizerStepResult step,
                          trainer_->FinishOptimizerStep(&result_.counters));
  result_.learning_rate = step.learning_rate;
  if (step.applied) {
    ++result_.optimizer_steps;
    grad_norm_sum_ += step.grad_norm;
  } else {
    ++result_.non_finite_gradients;
  }
  return absl::OkStatus();
}

DapoStepResult DapoStep::TakeResult() {
  if (result_.optimizer_steps > 0) result_.grad_norm = grad_norm_sum_ / result_.optimizer_steps;
  return std::move(result_);
}

}  // namespace

std::vector<model::TrainGroup> ModelInput(std::span<const TrainSequence> sequences) {
  std::vector<model::TrainGroup> groups;
  for (const TrainSequence& sequence : sequences) {
    if (groups.empty() || groups.back().group_index != sequence.group_index) {
      groups.push_back({.group_index = sequence.group_index,
                        .prompt_ids = {sequence.prompt.begin(), sequence.prompt.end()},
                        .worker = sequence.worker});
    }
    groups.back().completions.push_back(
        {.sample = sequence.sample,
         .token_ids = {sequence.completion.begin(), sequence.completion.end()}});
  }
  return groups;
}

absl::StatusOr<DapoStepResult> RunDapoStep(const std::vector<RolloutGroup>& groups,
                                           const DapoOptions& options, PolicyTrainer* trainer,
                                           base::StopToken* stop) {
  if (options.rules.old_logprob == OldLogprob::kCurrent && options.minibatches_per_step > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer.dapo.old_logprob: current takes one optimizer step per step, "
                     "trainer.minibatches_per_step is ",
                     options.minibatches_per_step, "; use recomputed"));
  }
  std::vector<TrainSequence> sequences;
  std::vector<size_t> group_ends;  // in sequences
  for (const RolloutGroup& group : groups) {
    for (TrainSequence& sequence : SequencesOf(group, options.rules)) {
      sequences.push_back(std::move(sequence));
    }
    group_ends.push_back(sequences.size());
  }
  DapoStep step(options, trainer, stop);
  if (options.rules.old_logprob == OldLogprob::kRecomputed) {
    TEMPER_RETURN_IF_ERROR(step.RecomputeOldLogprobs(std::span(sequences)));
  }
  size_t begin = 0;
  for (const size_t last_group : CutMiniBatches(groups.size(), options.minibatches_per_step)) {
    const size_t end = group_ends[last_group - 1];
    TEMPER_RETURN_IF_ERROR(
        step.TrainMiniBatch(std::span<const TrainSequence>(sequences).subspan(begin, end - begin)));
    begin = end;
  }
  return step.TakeResult();
}

}  // namespace temper::learner
