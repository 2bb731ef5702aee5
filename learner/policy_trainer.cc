#include "learner/policy_trainer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/noise_context.h"
#include "numerics/dapo.h"
#include "services/base/status_macros.h"

namespace temper::learner {

std::span<const float> FloatsOf(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

PolicyTrainer::PolicyTrainer(std::unique_ptr<model::TrainModel> model, PolicyTrainerOptions options)
    : options_(std::move(options)), model_(std::move(model)), adamw_(options_.adamw) {
  for (const auto& [name, tensor] : model_->parameters().trained()) {
    adamw_.AddParameter(name, static_cast<size_t>(tensor.numel()));
  }
}

absl::StatusOr<std::unique_ptr<PolicyTrainer>> PolicyTrainer::Create(
    const model::Parameters& parameters, PolicyTrainerOptions options) {
  TEMPER_RETURN_IF_ERROR(model::CheckPolicySupported(options.noise));
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<model::TrainModel> model,
                          model::TrainModel::Create(parameters, {.threads = options.threads}));
  return std::unique_ptr<PolicyTrainer>(new PolicyTrainer(std::move(model), std::move(options)));
}

absl::Status PolicyTrainer::Restore(std::vector<AdamWMoments> moments, const TrainerState& state) {
  std::map<std::string, AdamWMoments> by_name;
  for (AdamWMoments& moment : moments) by_name[moment.name] = std::move(moment);
  if (by_name.size() != adamw_.moments().size()) {
    return absl::DataLossError(absl::StrCat("the checkpoint has moments of ", by_name.size(),
                                            " parameters, the model has ",
                                            adamw_.moments().size()));
  }
  for (AdamWMoments& own : adamw_.moments()) {
    const auto found = by_name.find(own.name);
    if (found == by_name.end() || found->second.first.size() != own.first.size()) {
      return absl::DataLossError(
          absl::StrCat("the checkpoint has no moments of this size for ", own.name));
    }
    own = std::move(found->second);
  }
  adamw_.set_updates(state.optimizer_updates);
  state_ = state;
  return absl::OkStatus();
}

void PolicyTrainer::CloseStep(bool skipped) {
  ++state_.step;
  if (skipped) ++state_.skipped_steps;
}

void PolicyTrainer::BeginOptimizerStep() { model_->ZeroGrad(); }

model::TrainNoise PolicyTrainer::NoiseFor(numerics::Phase phase) const {
  return {.policy = &options_.noise,
          .phase = phase,
          .draw = options_.noise.learner_noise(),
          .run_seed = options_.run_seed,
          .optimizer_step = state_.optimizer_steps,
          .policy_version = state_.step};
}

numerics::VersionAqn PolicyTrainer::AqnOf(uint64_t version) const {
  if (!options_.aqn.enabled) return {};
  const int64_t t = static_cast<int64_t>(version);
  return {.plan = &options_.aqn,
          .sigma = numerics::Sigma(options_.aqn, t),
          .step = t,
          .run_seed = options_.run_seed,
          .policy_version = version};
}

absl::StatusOr<model::LogProbs> PolicyTrainer::Forward(std::span<const model::TrainGroup> groups,
                                                       numerics::Phase phase,
                                                       uint64_t sampled_version,
                                                       numerics::NoiseCounters* counters) {
  model::LogProbOptions pass;
  pass.temperature = options_.temperature;
  pass.noise = NoiseFor(phase);
  pass.gradients = phase == numerics::Phase::kTrain;
  if (options_.aqn.in_learner) pass.aqn = AqnOf(sampled_version);
  return model_->Forward(groups, pass, counters);
}

absl::StatusOr<model::LogProbs> PolicyTrainer::Replay(std::span<const model::TrainGroup> groups,
                                                      const SamplerPass& sampler,
                                                      model::TrainModel* other) {
  model::LogProbOptions pass;
  pass.temperature = options_.temperature;
  pass.noise = NoiseFor(numerics::Phase::kRollout);
  pass.noise.draw = sampler.error ? numerics::LearnerNoise::kSame : numerics::LearnerNoise::kNone;
  pass.gradients = false;
  if (other != nullptr) pass.noise.policy_version = sampler.version;
  if (sampler.rollout_aqn || options_.aqn.in_learner) pass.aqn = AqnOf(sampler.version);
  model::TrainModel* const model = other == nullptr ? model_.get() : other;
  return model->Forward(groups, pass, nullptr);
}

absl::Status PolicyTrainer::Backward(const model::LogProbs& pass, std::span<const float> weight,
                                     numerics::NoiseCounters* counters) {
  return model_->Backward(pass, weight, counters);
}

absl::StatusOr<std::vector<ParameterSpan>> PolicyTrainer::Spans() {
  std::vector<ParameterSpan> spans;
  for (auto& [name, tensor] : model_->parameters().trained()) {
    const at::Tensor& gradient = tensor.grad();
    if (!gradient.defined() || !gradient.is_contiguous() || gradient.numel() != tensor.numel()) {
      return absl::InternalError(absl::StrCat("no dense gradient of ", name));
    }
    spans.push_back({.value = {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())},
                     .gradient = FloatsOf(gradient)});
  }
  return spans;
}

absl::StatusOr<OptimizerStepResult> PolicyTrainer::FinishOptimizerStep(
    numerics::NoiseCounters* counters) {
  TEMPER_RETURN_IF_ERROR(model_->ApplyGradWeightError(NoiseFor(numerics::Phase::kTrain), counters));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<ParameterSpan> spans, Spans());
  OptimizerStepResult result;
  result.learning_rate = numerics::WarmedLearningRate(
      options_.learning_rate, static_cast<int64_t>(state_.optimizer_steps), options_.warmup_steps);
  result.grad_norm = GlobalNorm(spans);
  ++state_.optimizer_steps;
  if (!std::isfinite(result.grad_norm)) return result;
  const double clip = ClipFactor(result.grad_norm, options_.max_grad_norm);
  adamw_.Step(spans, result.learning_rate, static_cast<float>(clip));
  state_.optimizer_updates = adamw_.updates();
  model_->ParametersChanged();
  result.applied = true;
  return result;
}

}  // namespace temper::learner
