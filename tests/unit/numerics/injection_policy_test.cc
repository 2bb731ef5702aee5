#include "numerics/injection_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "numerics/noise_policy.h"
#include "services/base/random_key.h"

namespace temper::numerics {
namespace {

using ::testing::HasSubstr;

const ModelShape kShape = {.num_layers = 4};

InjectionSpec Mxfp4(InjectionPoint point) {
  return {.enabled = true, .format = FormatSpec{}, .point = point};
}

std::string MistakeOf(const InjectionSpec& spec) {
  return std::string(InjectionPolicy::Create(spec, kShape).status().message());
}

TEST(InjectionPolicy, ActsOnTheOperandsOfItsPointInItsPhases) {
  const TensorRole roles[] = {TensorRole::kInputOperand, TensorRole::kWeightOperand,
                              TensorRole::kInjectedOutput};
  const std::vector<std::vector<bool>> acts = {
      {true, false, false}, {false, false, true}, {false, true, false}, {true, true, false}};
  for (size_t point = 0; point < acts.size(); ++point) {
    const InjectionPolicy policy =
        *InjectionPolicy::Create(Mxfp4(static_cast<InjectionPoint>(point)), kShape);
    for (size_t role = 0; role < 3; ++role) {
      const auto on = [&](Phase phase, Direction direction, Operator op, int layer) {
        return policy.Error(phase, direction, roles[role], op, layer).acts();
      };
      for (const Phase phase : {Phase::kRollout, Phase::kOldLogprob, Phase::kTrain}) {
        EXPECT_EQ(on(phase, Direction::kForward, Operator::kUp, 3), acts[point][role]);
      }
      EXPECT_EQ(on(Phase::kTrain, Direction::kBackward, Operator::kUp, 3),
                acts[point][role] && role != 2)
          << "the products of the gradients read the operands";
      EXPECT_FALSE(on(Phase::kRollout, Direction::kBackward, Operator::kUp, 3));
      EXPECT_FALSE(on(Phase::kEval, Direction::kForward, Operator::kUp, 3));
      EXPECT_FALSE(on(Phase::kRefLogprob, Direction::kForward, Operator::kUp, 3));
      EXPECT_FALSE(on(Phase::kRollout, Direction::kForward, Operator::kLmHead, kNoLayer));
      EXPECT_FALSE(on(Phase::kRollout, Direction::kForward, Operator::kUp, 4)) << "no such layer";
    }
  }
}

TEST(InjectionPolicy, PhasesFollowApplyDuringAndLearnerNoise) {
  InjectionSpec spec = Mxfp4(InjectionPoint::kWeight);
  spec.apply_during = ApplyDuring::kRollout;
  EXPECT_FALSE(InjectionPolicy::Create(spec, kShape)->Any(Phase::kTrain, Direction::kForward));
  spec.apply_during = ApplyDuring::kTraining;
  EXPECT_FALSE(InjectionPolicy::Create(spec, kShape)->Any(Phase::kRollout, Direction::kForward));
  spec.learner_noise = LearnerNoise::kNone;
  EXPECT_THAT(MistakeOf(spec), HasSubstr("leave no phase"));
  spec.apply_during = ApplyDuring::kBoth;
  const InjectionPolicy policy = *InjectionPolicy::Create(spec, kShape);
  EXPECT_TRUE(policy.Any(Phase::kRollout, Direction::kForward));
  EXPECT_FALSE(policy.Any(Phase::kTrain, Direction::kBackward));
}

TEST(InjectionPolicy, RefusesWhatCannotBeWithTheReason) {
  InjectionSpec spec = Mxfp4(InjectionPoint::kInput);
  spec.format->block_2d = true;
  EXPECT_THAT(MistakeOf(spec), HasSubstr("block_2d"));
  spec.point = InjectionPoint::kOutput;
  EXPECT_THAT(MistakeOf(spec), HasSubstr("block_2d"));
  spec.point = InjectionPoint::kBoth;
  EXPECT_EQ(MistakeOf(spec), "") << "tiles of the weight beside rows of the input";
  spec = Mxfp4(InjectionPoint::kWeight);
  spec.target_modules = {"router"};
  spec.exclude_modules = {"layers.7"};
  spec.target_layers = {4};
  EXPECT_THAT(MistakeOf(spec), HasSubstr("target_modules: 'router'"));
  EXPECT_THAT(MistakeOf(spec), HasSubstr("exclude_modules: 'layers.7'"));
  EXPECT_THAT(MistakeOf(spec), HasSubstr("target_layers: 4"));
  EXPECT_THAT(MistakeOf({.enabled = true, .error = {.strength = 0.0f}}),
              HasSubstr("error_scale is 0"));
  EXPECT_EQ(MistakeOf({.enabled = true, .error = {.strength = 0.0f}, .null_arm = true}), "");
  EXPECT_THAT(MistakeOf({.enabled = true, .error = {.type = ErrorType::kSpike, .strength = 0.1f}}),
              HasSubstr("spike_probability"));
  EXPECT_EQ(MistakeOf({.enabled = false}), "");
}

TEST(InjectionPolicy, KeysAreThoseOfTheTable) {
  const InjectionPolicy rounding =
      *InjectionPolicy::Create({.enabled = true,
                                .format = FormatSpec{.stochastic_rounding = true},
                                .point = InjectionPoint::kBoth},
                               kShape);
  const InjectionPolicy gaussian = *InjectionPolicy::Create(
      {.enabled = true, .error = {.strength = 0.1f}, .point = InjectionPoint::kBoth}, kShape);
  const InjectionPolicy nearest = *InjectionPolicy::Create(Mxfp4(InjectionPoint::kBoth), kShape);
  using base::Purpose;
  using base::RandomKey;
  const InjectionDraw rollout = {.phase = Phase::kRollout, .seed = 7};
  InjectionDraw train = rollout;
  train.phase = Phase::kTrain;
  EXPECT_EQ(gaussian.RowKey(rollout, 5), RandomKey(7, Purpose::kForwardError, 5));
  EXPECT_EQ(gaussian.RowKey(train, 5), gaussian.RowKey(rollout, 5));
  EXPECT_EQ(gaussian.WeightKey(train, 9), RandomKey(7, Purpose::kWeightError, 9));
  EXPECT_EQ(rounding.RowKey(rollout, 5), RandomKey(7, Purpose::kStochasticRounding, 5));
  EXPECT_EQ(rounding.WeightKey(rollout, 9), RandomKey(7, Purpose::kStochasticRounding, 9));
  EXPECT_EQ(nearest.WeightKey(rollout, 9), 0u) << "one Q(W), whatever the version";
  train.fresh = true;
  train.optimizer_step = 2;
  EXPECT_EQ(gaussian.WeightKey(train, 9), RandomKey(7, Purpose::kWeightError, 9, 2 * 8 + 3 + 1));
  EXPECT_EQ(gaussian.RowKey(train, 5), RandomKey(7, Purpose::kForwardErrorFresh, 5, 2 * 8 + 3));
  const InjectionDraw evaluation = {.phase = Phase::kEval, .seed = 1};
  EXPECT_EQ(gaussian.WeightKey(evaluation, 9), gaussian.WeightKey(evaluation, 60))
      << "versions share the draws of an evaluation";
  EXPECT_EQ(gaussian.RowKey(evaluation, 5), RandomKey(1, Purpose::kEvaluationError, 5));
}

TEST(InjectionPolicy, IsPartOfTheFingerprintWhereItIsOn) {
  const NoisePolicy none = *NoisePolicy::Create({}, kShape);
  std::vector<uint64_t> seen = {none.Fingerprint()};
  const auto add = [&](const InjectionSpec& spec) {
    NoisePolicy policy = none;
    policy.set_injection(*InjectionPolicy::Create(spec, kShape));
    seen.push_back(policy.Fingerprint());
  };
  add({});
  EXPECT_EQ(seen[1], seen[0]) << "a block that is off";
  seen.pop_back();
  for (const auto point : {InjectionPoint::kInput, InjectionPoint::kOutput, InjectionPoint::kWeight,
                           InjectionPoint::kBoth}) {
    add(Mxfp4(point));
  }
  InjectionSpec spec = Mxfp4(InjectionPoint::kWeight);
  spec.format->block_2d = true;
  add(spec);
  spec = Mxfp4(InjectionPoint::kWeight);
  spec.target_layers = {1};
  add(spec);
  spec.apply_during = ApplyDuring::kRollout;
  add(spec);
  add({.enabled = true, .error = {.strength = 0.1f}});
  add({.enabled = true, .error = {.strength = 0.1000001f}});
  for (size_t i = 0; i < seen.size(); ++i) {
    for (size_t j = i + 1; j < seen.size(); ++j) EXPECT_NE(seen[i], seen[j]) << i << " " << j;
  }
}

TEST(InjectionPolicy, AnEvaluationIsCleanUnlessItNamesTheInjection) {
  NoisePolicy base = *NoisePolicy::Create({}, kShape);
  base.set_injection(*InjectionPolicy::Create(Mxfp4(InjectionPoint::kWeight), kShape));
  EXPECT_FALSE(EvaluationPolicy(base, 0.1).injection().enabled());
  const InjectionPolicy named = EvaluationPolicy(base, 0.0, true).injection();
  EXPECT_TRUE(named.Any(Phase::kEval, Direction::kForward));
  EXPECT_FALSE(named.Any(Phase::kRollout, Direction::kForward));
  EXPECT_EQ(named.WeightsId(0), base.injection().WeightsId(0)) << "one Q(W) for both";
}

TEST(CountChanges, CountsWhatChangedAndLeavesOutWhatIsNotFinite) {
  const std::vector<float> before = {1.0f, 2.0f, -4.0f, 0.0f, 3.0f};
  const std::vector<float> after = {1.0f, 2.5f, -3.0f, 0.0f, INFINITY};
  ErrorStats stats;
  CountChanges(before, after, &stats);
  EXPECT_EQ(stats.elements, 5u);
  EXPECT_EQ(stats.changed, 2u);
  EXPECT_EQ(stats.non_finite, 1u);
  EXPECT_EQ(stats.sum_sq_error.value(), 0.25 + 1.0);
  EXPECT_EQ(stats.sum_sq_value.value(), 1.0 + 4.0 + 16.0);
}

TEST(InjectionPolicy, AdaptersTakeNone) {
  InjectionSpec spec = Mxfp4(InjectionPoint::kWeight);
  spec.target_modules = {"q_proj", "lora_b"};
  const auto refused = InjectionPolicy::Create(spec, {.num_layers = 4, .lora_layers = {1}});
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("lora_b take no injection"));
  spec.target_modules = {"q_proj"};
  EXPECT_TRUE(InjectionPolicy::Create(spec, {.num_layers = 4, .lora_layers = {1}}).ok());
}

}  // namespace
}  // namespace temper::numerics
