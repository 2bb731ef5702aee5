// hw_error_injection in whole models: the sampler against the learner, gradients against finite
// differences, what is counted, and what is left alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/decode_engine.h"
#include "model/score_sequences.h"
#include "model/train_forward.h"
#include "numerics/noise_counters.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::InjectionPoint;
using numerics::InjectionSpec;
using numerics::NumberFormat;
using numerics::Operator;
using numerics::Phase;
using numerics::TensorRole;
using temper::testing::IsOk;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 11, kVersion = 4;

GenerateRequest RequestUnder(const numerics::NoisePolicy* policy) {
  GenerateRequest request = {
      .max_completion_tokens = 12, .stop_ids = {3, 17}, .seed = kSeed, .policy = policy};
  for (const uint64_t scope : {3, 8}) {
    request.groups.push_back({.scope = scope,
                              .prompt_ids = TinyPrompt(9 + static_cast<int64_t>(scope), 83, 2),
                              .samples = 3});
  }
  return request;
}

std::unique_ptr<DecodeEngine> EngineOf(const Parameters& parameters,
                                       const numerics::NoisePolicy& policy, uint64_t version) {
  auto engine = DecodeEngine::Create({.config = parameters.config, .threads = 2}).value();
  EXPECT_THAT(
      engine->Install(parameters, version, {}, {.policy = &policy.injection(), .run_seed = kSeed})
          .status(),
      IsOk());
  return engine;
}

std::vector<TrainGroup> GroupsOf(const GenerateRequest& request, const GenerateResult& result) {
  std::vector<TrainGroup> groups;
  for (size_t g = 0; g < request.groups.size(); ++g) {
    TrainGroup group = {.group_index = request.groups[g].scope,
                        .prompt_ids = request.groups[g].prompt_ids};
    for (uint32_t s = 0; s < request.groups[g].samples; ++s) {
      group.completions.push_back({s, result.groups[g].completions[s].token_ids});
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<float> Recorded(const GenerateResult& result) {
  std::vector<float> all;
  for (const GeneratedGroup& group : result.groups) {
    for (const Completion& completion : group.completions) {
      all.insert(all.end(), completion.logprobs.begin(), completion.logprobs.end());
    }
  }
  return all;
}

std::vector<float> LogProbsOf(TrainModel& model, const std::vector<TrainGroup>& groups,
                              const TrainNoise& noise) {
  const LogProbs pass =
      model.Forward(groups, {.noise = noise, .gradients = false}, nullptr).value();
  const float* values = pass.logprobs.const_data_ptr<float>();
  return {values, values + pass.logprobs.numel()};
}

TEST(Injection, TheLearnerReplaysTheLogProbsOfEveryInjectionBitForBit) {
  ModelConfig config = TinyConfig();
  for (const bool tied : {true, false}) {
    config.tie_word_embeddings = tied;
    const Parameters parameters = TinyParameters(config);
    const uint64_t hash = HashParameters(parameters);
    auto model = TrainModel::Create(parameters, {.threads = 2, .head_rows = 7}).value();
    for (const InjectionSpec& spec : EveryInjectionSpec()) {
      for (const bool noisy : {false, true}) {
        const numerics::NoisePolicy policy =
            InjectedPolicy(spec, noisy ? EveryErrorSpec()[0] : numerics::NoiseSpec());
        const GenerateRequest request = RequestUnder(&policy);
        const GenerateResult result =
            EngineOf(parameters, policy, kVersion)->Generate(request).value();
        const std::vector<TrainGroup> groups = GroupsOf(request, result);
        TrainNoise noise = {.policy = &policy, .run_seed = kSeed, .policy_version = kVersion};
        EXPECT_EQ(LogProbsOf(*model, groups, noise), Recorded(result))
            << policy.injection().Describe() << "; " << policy.Describe();
        noise.draw = numerics::LearnerNoise::kNone;
        EXPECT_NE(LogProbsOf(*model, groups, noise), Recorded(result))
            << policy.injection().Describe();
      }
    }
    EXPECT_EQ(HashParameters(parameters), hash);
    EXPECT_EQ(HashParameters(model->parameters()), hash) << "masters are never edited";
  }
}

// The draws of weights belong to a version, and to the optimizer step where the learner's are
// fresh.
TEST(Injection, WeightsAreDrawnForOncePerVersion) {
  InjectionSpec spec = {
      .enabled = true, .error = {.strength = 0.1f}, .point = InjectionPoint::kWeight};
  const numerics::NoisePolicy policy = InjectedPolicy(spec);
  const Parameters parameters = TinyParameters(TinyConfig());
  auto model = TrainModel::Create(parameters, {}).value();
  const std::vector<TrainGroup> groups = {{5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(9, 83, 2)}}}};
  const TrainNoise noise = {.policy = &policy, .run_seed = kSeed, .policy_version = kVersion};
  TrainNoise later = noise, next = noise, fresh = noise;
  later.optimizer_step = 7;
  next.policy_version = kVersion + 1;
  fresh.draw = numerics::LearnerNoise::kFresh;
  TrainNoise fresh_later = fresh;
  fresh_later.optimizer_step = 7;
  const std::vector<float> drawn = LogProbsOf(*model, groups, noise);
  EXPECT_EQ(LogProbsOf(*model, groups, later), drawn);
  EXPECT_NE(LogProbsOf(*model, groups, next), drawn);
  EXPECT_NE(LogProbsOf(*model, groups, fresh), drawn);
  EXPECT_NE(LogProbsOf(*model, groups, fresh_later), LogProbsOf(*model, groups, fresh));
  EXPECT_EQ(LogProbsOf(*model, groups, noise), drawn);
}

// A changed parameter is perturbed anew: as a model that begins with it.
TEST(Injection, ChangedParametersArePerturbedAnew) {
  const numerics::NoisePolicy policy = InjectedPolicy(EveryInjectionSpec().back());
  const std::vector<TrainGroup> groups = {{5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(9, 83, 2)}}}};
  const TrainNoise noise = {.policy = &policy, .run_seed = kSeed};
  auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
  const std::vector<float> before = LogProbsOf(*model, groups, noise);
  for (auto& [name, tensor] : model->parameters().named) {
    float* values = tensor.data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) values[i] *= 1.25f;
  }
  model->ParametersChanged();
  const std::vector<float> after = LogProbsOf(*model, groups, noise);
  EXPECT_NE(after, before);
  auto begun = TrainModel::Create(model->parameters(), {}).value();
  EXPECT_EQ(LogProbsOf(*begun, groups, noise), after);
}

TEST(Injection, PhasesThatAreNotNamedMultiplyCleanOperands) {
  const Parameters parameters = TinyParameters(TinyConfig());
  auto model = TrainModel::Create(parameters, {}).value();
  InjectionSpec spec = {
      .enabled = true, .format = numerics::FormatSpec{}, .point = InjectionPoint::kBoth};
  const GenerateRequest plain = RequestUnder(nullptr);
  const std::vector<float> clean =
      Recorded(EngineOf(parameters, numerics::NoisePolicy(), kVersion)->Generate(plain).value());
  for (const auto during : {numerics::ApplyDuring::kRollout, numerics::ApplyDuring::kTraining}) {
    spec.apply_during = during;
    const numerics::NoisePolicy policy = InjectedPolicy(spec);
    const GenerateRequest request = RequestUnder(&policy);
    const GenerateResult result = EngineOf(parameters, policy, kVersion)->Generate(request).value();
    const bool rollout = during == numerics::ApplyDuring::kRollout;
    EXPECT_EQ(Recorded(result) == clean, !rollout);
    const std::vector<TrainGroup> groups = GroupsOf(request, result);
    const TrainNoise noise = {.policy = &policy, .run_seed = kSeed};
    EXPECT_EQ(LogProbsOf(*model, groups, noise) == LogProbsOf(*model, groups, {}), rollout);
  }
}

// An evaluation names the injection, or is clean, whatever was installed for the rollouts.
TEST(Injection, AnEvaluationErrsAsTheScoringOfItsTokensDoes) {
  const Parameters parameters = TinyParameters(TinyConfig());
  for (const InjectionSpec& spec : EveryInjectionSpec()) {
    const numerics::NoisePolicy trained = InjectedPolicy(spec);
    const auto engine = EngineOf(parameters, trained, kVersion);
    std::vector<float> logprobs[2];
    for (const bool injected : {false, true}) {
      const numerics::NoisePolicy policy = numerics::EvaluationPolicy(trained, 0.0, injected);
      GenerateRequest request = {.max_completion_tokens = 10,
                                 .temperature = 0.0,
                                 .phase = Phase::kEval,
                                 .seed = 2,
                                 .policy = &policy};
      // Scored sequences have a prompt of one token, and are numbered from 0.
      request.groups = {{.scope = 0, .prompt_ids = {7}, .samples = 1}};
      const GenerateResult result = engine->Generate(request).value();
      const Completion& completion = result.groups[0].completions[0];
      std::vector<int32_t> ids = {7};
      ids.insert(ids.end(), completion.token_ids.begin(), completion.token_ids.end());
      const auto scores =
          ScoreSequences(parameters, {&ids, 1}, 1, {.policy = &policy, .noise_seed = 2}).value();
      EXPECT_EQ(scores[0], completion.logprobs) << policy.injection().Describe();
      EXPECT_THAT(numerics::CheckSeen(policy, result.groups[0].counters), IsOk());
      logprobs[injected] = completion.logprobs;
    }
    EXPECT_NE(logprobs[0], logprobs[1]) << trained.injection().Describe();
  }
}

std::vector<float> ToVector(const at::Tensor& tensor) {
  const float* values = tensor.const_data_ptr<float>();
  return {values, values + tensor.numel()};
}

// Injections whose D is exact: the gradient is the derivative of the forward pass with fixed keys.
TEST(Injection, GradientsUnderLinearErrorsAgreeWithFiniteDifferences) {
  const std::vector<TrainGroup> groups = {
      {5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(4, 83, 2)}, {1, TinyPrompt(7, 83, 3)}}}};
  for (const InjectionSpec& spec : EveryInjectionSpec()) {
    const numerics::NoisePolicy policy = InjectedPolicy(spec);
    const numerics::OperatorError& error = spec.error;
    if (spec.format.has_value() || !error.linear()) continue;
    SCOPED_TRACE(policy.injection().Describe());
    auto model = TrainModel::Create(TinyParameters(TinyConfig()), {.head_rows = 5}).value();
    const TrainNoise noise = {.policy = &policy, .run_seed = kSeed, .policy_version = kVersion};
    const LogProbs pass = model->Forward(groups, {.noise = noise}, nullptr).value();
    const std::vector<float> weight(static_cast<size_t>(pass.logprobs.numel()), 0.4f);
    ASSERT_THAT(model->Backward(pass, weight, nullptr), IsOk());
    for (auto& [name, tensor] : model->parameters().named) {
      const std::vector<float> gradient = ToVector(tensor.grad());
      const std::vector<float> kept = ToVector(tensor.detach());
      double norm = 0.0;
      for (const float g : gradient) norm += double{g} * g;
      norm = std::sqrt(norm);
      const double step = 2e-3;
      const auto loss = [&](double sign) {
        for (size_t i = 0; i < kept.size(); ++i) {
          tensor.data_ptr<float>()[i] =
              static_cast<float>(kept[i] + sign * step * gradient[i] / norm);
        }
        model->ParametersChanged();
        double sum = 0.0;
        for (const float logprob : LogProbsOf(*model, groups, noise)) sum += 0.4 * logprob;
        return sum;
      };
      const double slope = (loss(1.0) - loss(-1.0)) / (2.0 * step);
      std::copy(kept.begin(), kept.end(), tensor.data_ptr<float>());
      EXPECT_NEAR(slope, norm, 0.01 * norm + 2e-3) << name;
    }
  }
}

// The part of a tied embedding that came through lm_head keeps its D whether it is held apart for
// an error of g_W or not: an error of strength ~0 changes nothing.
TEST(Injection, ATiedHeadHeldApartHasTheSameGradient) {
  InjectionSpec spec = {.enabled = true,
                        .error = {.strength = 0.2f},
                        .point = InjectionPoint::kBoth,
                        .target_modules = {"lm_head"}};
  numerics::NoiseSpec noise = {.enabled = true, .error_scale = 1e-7, .backward_only = true};
  noise.target_modules = {"lm_head"};
  const std::vector<TrainGroup> groups = {{5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(9, 83, 2)}}}};
  std::vector<float> gradients[2];
  for (const bool apart : {false, true}) {
    const numerics::NoisePolicy policy =
        InjectedPolicy(spec, apart ? noise : numerics::NoiseSpec());
    auto model = TrainModel::Create(TinyParameters(TinyConfig()), {.head_rows = 4}).value();
    const TrainNoise train = {.policy = &policy, .run_seed = kSeed};
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      const LogProbs pass = model->Forward(groups, {.noise = train}, nullptr).value();
      const std::vector<float> weight(static_cast<size_t>(pass.logprobs.numel()), 0.4f);
      ASSERT_THAT(model->Backward(pass, weight, nullptr), IsOk());
    }
    ASSERT_THAT(model->ApplyGradWeightError(train, nullptr), IsOk());
    gradients[apart] = ToVector(model->parameters().Get("model.embed_tokens.weight").grad());
  }
  ASSERT_EQ(gradients[0].size(), gradients[1].size());
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    ASSERT_NEAR(gradients[0][i], gradients[1][i], 1e-4f) << i;
  }
}

numerics::NoiseCounters CountsOf(const Parameters& parameters,
                                 const numerics::NoisePolicy& policy) {
  const GenerateRequest request = RequestUnder(&policy);
  const GenerateResult result = EngineOf(parameters, policy, kVersion)->Generate(request).value();
  numerics::NoiseCounters counters;
  for (const GeneratedGroup& group : result.groups) counters.Merge(group.counters);
  auto model = TrainModel::Create(parameters, {.threads = 2}).value();
  const TrainNoise noise = {.policy = &policy, .run_seed = kSeed, .policy_version = kVersion};
  const LogProbs pass =
      model->Forward(GroupsOf(request, result), {.noise = noise}, &counters).value();
  const std::vector<float> weight(static_cast<size_t>(pass.logprobs.numel()), 0.4f);
  EXPECT_THAT(model->Backward(pass, weight, &counters), IsOk());
  EXPECT_THAT(model->ApplyGradWeightError(noise, &counters), IsOk());
  return counters;
}

TEST(Injection, CountsEveryOperandOfEveryProductAndLeavesTheRowsOfNoisyOpsAlone) {
  const Parameters parameters = TinyParameters(TinyConfig());
  for (const InjectionSpec& spec : EveryInjectionSpec()) {
    const numerics::NoisePolicy policy = InjectedPolicy(spec);
    SCOPED_TRACE(policy.injection().Describe());
    const numerics::NoiseCounters counters = CountsOf(parameters, policy);
    EXPECT_THAT(numerics::CheckSeen(policy, counters), IsOk());
    EXPECT_THAT(numerics::CheckSeen(numerics::NoisePolicy(), counters),
                temper::testing::StatusIs(absl::StatusCode::kFailedPrecondition));
    const bool result = spec.point == InjectionPoint::kOutput;
    const int roles = spec.point == InjectionPoint::kBoth ? 2 : 1;
    int injected = 0;
    for (const auto& [id, row] : counters.rows()) {
      if (!numerics::IsInjection(id)) {
        EXPECT_EQ(row.stats.elements, 0u) << numerics::NoiseRowName(id);
        continue;
      }
      ++injected;
      EXPECT_EQ(row.stats.calls, row.operator_calls) << numerics::NoiseRowName(id);
      EXPECT_GT(row.stats.changed, 0u) << numerics::NoiseRowName(id);
      // As often as the operator ran.
      const numerics::NoiseRowId own = {id.phase, id.direction, id.layer, id.op,
                                        numerics::RoleInPass(id.direction, id.op)};
      EXPECT_EQ(row.operator_calls, counters.rows().at(own).operator_calls)
          << numerics::NoiseRowName(id);
    }
    // 7 linears in 2 layers and lm_head: rollout, train forward and, for operands, backward.
    EXPECT_EQ(injected, 15 * roles * (result ? 2 : 3));
  }
}

TEST(Injection, AchievedScaleIsTheConfiguredOne) {
  for (const auto point :
       {InjectionPoint::kInput, InjectionPoint::kWeight, InjectionPoint::kOutput}) {
    const numerics::NoisePolicy policy =
        InjectedPolicy({.enabled = true, .error = {.strength = 0.1f}, .point = point});
    const numerics::NoiseCounters counters = CountsOf(TinyParameters(TinyConfig()), policy);
    const TensorRole role = point == InjectionPoint::kInput    ? TensorRole::kInputOperand
                            : point == InjectionPoint::kWeight ? TensorRole::kWeightOperand
                                                               : TensorRole::kInjectedOutput;
    EXPECT_NEAR(counters.Total(Phase::kRollout, Direction::kForward, role).AchievedScale(), 0.1,
                0.01);
    EXPECT_EQ(counters.Total(Phase::kRollout, Direction::kForward).elements, 0u);
  }
}

TEST(Injection, AnOperandThatIsNotPerturbedIsNamed) {
  const numerics::NoisePolicy policy = InjectedPolicy(
      {.enabled = true, .format = numerics::FormatSpec{}, .point = InjectionPoint::kBoth});
  numerics::NoiseCounters all = CountsOf(TinyParameters(TinyConfig()), policy);
  const numerics::NoiseRowId lost = {Phase::kTrain, Direction::kBackward, 1, Operator::kUp,
                                     TensorRole::kInputOperand};
  numerics::NoiseCounters without;
  for (const auto& [id, row] : all.rows()) {
    if (id != lost) without.Add(id, row);
  }
  EXPECT_THAT(std::string(numerics::CheckSeen(policy, without).message()),
              HasSubstr("train backward layers.1 up input_operand"));
  numerics::NoiseRow unchanged = all.rows().at(lost);
  unchanged.stats.changed = 0;
  without.Add(lost, unchanged);
  EXPECT_THAT(std::string(numerics::CheckSeen(policy, without).message()), HasSubstr("none of"));
  const numerics::MadePass made[] = {{Phase::kRollout, Direction::kForward}};
  EXPECT_THAT(numerics::CheckSeen(policy, numerics::NoiseCounters(), made),
              temper::testing::StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace temper::model
