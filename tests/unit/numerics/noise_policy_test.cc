#include "numerics/noise_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace temper::numerics {
namespace {

using testing::HasSubstr;

const ModelShape kShape = {.num_layers = 24};
constexpr Operator kDecoder[] = {Operator::kQ,    Operator::kK,  Operator::kV,   Operator::kO,
                                 Operator::kGate, Operator::kUp, Operator::kDown};

NoiseSpec Spec() { return {.enabled = true, .error_scale = 0.05}; }

NoisePolicy Make(const NoiseSpec& spec, const ModelShape& shape = kShape) {
  auto policy = NoisePolicy::Create(spec, shape);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return policy.ok() ? *policy : NoisePolicy();
}

std::string Mistakes(const NoiseSpec& spec, const ModelShape& shape = kShape) {
  const auto policy = NoisePolicy::Create(spec, shape);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(policy.status().message());
}

double Rollout(const NoisePolicy& policy, Operator op, int layer) {
  return policy.Scale(Phase::kRollout, Direction::kForward, op, layer);
}

TEST(PathMatches, WorksOnWholeComponents) {
  EXPECT_TRUE(PathMatches("layers.2", "model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(PathMatches("layers.2", "model.layers.20.self_attn.q_proj"));
  EXPECT_TRUE(PathMatches("layers.2*", "model.layers.20.self_attn.q_proj"));
  EXPECT_TRUE(PathMatches("q_proj", "model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(PathMatches("proj", "model.layers.2.self_attn.q_proj"));
  EXPECT_TRUE(PathMatches("*_proj", "model.layers.2.self_attn.q_proj"));
  EXPECT_TRUE(PathMatches("layers.**.q_proj", "model.layers.2.self_attn.q_proj"));
  EXPECT_TRUE(PathMatches("layers.**.2", "model.layers.2.mlp"));
  EXPECT_FALSE(PathMatches("layers.mlp", "model.layers.2.mlp"));
  EXPECT_FALSE(PathMatches("", "lm_head"));
}

TEST(PathMatches, AnHostilePatternEndsQuickly) {
  std::string stars;
  for (int i = 0; i < 200; ++i) stars += "**.";
  EXPECT_FALSE(PathMatches(stars + "x", "a.b.c.d.e.f.g.h"));
  EXPECT_FALSE(PathMatches("a*a*a*a*a*a*a*a*a*b", std::string(5000, 'a')));
}

TEST(NoisePolicy, PerturbsEveryDecoderLinearByDefault) {
  const NoisePolicy policy = Make(Spec());
  for (const Operator op : kDecoder) {
    for (int layer = 0; layer < 24; ++layer) {
      EXPECT_EQ(Rollout(policy, op, layer), 0.05);
      for (const Phase phase : {Phase::kOldLogprob, Phase::kTrain}) {
        EXPECT_EQ(policy.Scale(phase, Direction::kForward, op, layer), 0.05);
      }
      EXPECT_EQ(policy.Scale(Phase::kTrain, Direction::kBackward, op, layer), 0.05);
      EXPECT_EQ(policy.Scale(Phase::kEval, Direction::kForward, op, layer), 0.0);
      EXPECT_EQ(policy.Scale(Phase::kRefLogprob, Direction::kForward, op, layer), 0.0);
    }
    EXPECT_EQ(Rollout(policy, op, 24), 0.0);
    EXPECT_EQ(Rollout(policy, op, kNoLayer), 0.0);
  }
  for (const Operator op : {Operator::kLmHead, Operator::kRouter, Operator::kLoraA,
                            Operator::kAttentionScores, Operator::kSoftmax, Operator::kRmsNorm}) {
    EXPECT_EQ(Rollout(policy, op, kNoLayer), 0.0);
    EXPECT_EQ(Rollout(policy, op, 3), 0.0);
  }
}

TEST(NoisePolicy, ADefaultPolicyHasNoNoise) {
  const NoisePolicy policy;
  EXPECT_FALSE(policy.AnyNoise());
  EXPECT_EQ(Rollout(policy, Operator::kQ, 0), 0.0);
}

TEST(NoisePolicy, ShorthandsSelectPhasesAndDirections) {
  struct Rows {
    bool rollout, old_logprob, train, backward;
  };
  auto rows = [](const NoiseSpec& spec) {
    const NoisePolicy p = Make(spec);
    return Rows{
        p.Any(Phase::kRollout, Direction::kForward), p.Any(Phase::kOldLogprob, Direction::kForward),
        p.Any(Phase::kTrain, Direction::kForward), p.Any(Phase::kTrain, Direction::kBackward)};
  };
  auto expect = [&](const NoiseSpec& spec, Rows want, const char* name) {
    const Rows got = rows(spec);
    EXPECT_EQ(got.rollout, want.rollout) << name;
    EXPECT_EQ(got.old_logprob, want.old_logprob) << name;
    EXPECT_EQ(got.train, want.train) << name;
    EXPECT_EQ(got.backward, want.backward) << name;
  };
  NoiseSpec spec = Spec();
  expect(spec, {true, true, true, true}, "both");
  spec.forward_only = true;
  expect(spec, {true, true, true, false}, "forward_only");
  spec = Spec();
  spec.backward_only = true;
  expect(spec, {false, false, false, true}, "backward_only");
  spec = Spec();
  spec.apply_during = ApplyDuring::kRollout;
  expect(spec, {true, false, false, false}, "rollout");
  spec.apply_during = ApplyDuring::kTraining;
  expect(spec, {false, true, true, true}, "training");
  spec = Spec();
  spec.learner_noise = LearnerNoise::kNone;
  expect(spec, {true, false, false, true}, "learner_noise none");
}

TEST(NoisePolicy, TargetsExcludesAndLayersNarrowTheTable) {
  NoiseSpec spec = Spec();
  spec.target_modules = {"layers.2", "*.down_proj"};
  spec.exclude_modules = {"layers.2.self_attn.v_proj", "lm_head", "embed_tokens"};
  const NoisePolicy policy = Make(spec);
  EXPECT_EQ(Rollout(policy, Operator::kQ, 2), 0.05);
  EXPECT_EQ(Rollout(policy, Operator::kQ, 20), 0.0);
  EXPECT_EQ(Rollout(policy, Operator::kV, 2), 0.0);
  EXPECT_EQ(Rollout(policy, Operator::kDown, 20), 0.05);
  spec = Spec();
  spec.target_layers = {5, 7};
  EXPECT_EQ(Rollout(Make(spec), Operator::kQ, 5), 0.05);
  EXPECT_EQ(Rollout(Make(spec), Operator::kQ, 6), 0.0);
}

TEST(NoisePolicy, WhatIsExcludedByDefaultIsSwitchedOnByNameOnly) {
  NoiseSpec spec = Spec();
  spec.target_modules = {"layers"};
  EXPECT_EQ(Rollout(Make(spec), Operator::kAttentionScores, 0), 0.0);
  spec.target_modules = {"layers", "lm_head", "attention_scores"};
  const NoisePolicy named = Make(spec);
  EXPECT_EQ(Rollout(named, Operator::kLmHead, kNoLayer), 0.05);
  EXPECT_EQ(Rollout(named, Operator::kAttentionScores, 7), 0.05);
  EXPECT_EQ(Rollout(named, Operator::kAttentionValues, 7), 0.0);
  EXPECT_EQ(Rollout(named, Operator::kQ, 7), 0.05);
  spec.target_modules = {"lm_*", "q"};
  EXPECT_THAT(Mistakes(spec), HasSubstr("'lm_*' selects no operator"));
  spec.target_modules = {"q"};  // the short name of q_proj
  EXPECT_EQ(Rollout(Make(spec), Operator::kQ, 0), 0.05);
  EXPECT_EQ(Rollout(Make(spec), Operator::kK, 0), 0.0);
}

TEST(NoisePolicy, AllOpsAddsSoftmaxSiluAndTheNorms) {
  NoiseSpec spec = Spec();
  spec.all_ops = true;
  const NoisePolicy policy = Make(spec);
  for (const Operator op : {Operator::kSoftmax, Operator::kSilu, Operator::kRmsNorm,
                            Operator::kInputNorm, Operator::kPostAttentionNorm, Operator::kQ}) {
    EXPECT_EQ(Rollout(policy, op, 3), 0.05);
  }
  EXPECT_EQ(Rollout(policy, Operator::kFinalNorm, kNoLayer), 0.05);
  EXPECT_EQ(Rollout(policy, Operator::kLmHead, kNoLayer), 0.0);
  EXPECT_EQ(Rollout(policy, Operator::kAttentionScores, 3), 0.0);
}

TEST(NoisePolicy, RefusesWhatWouldDoNothingAndListsAllMistakes) {
  NoiseSpec spec = Spec();
  spec.target_modules = {"layers.99", "router"};
  spec.exclude_modules = {"w_proj"};
  spec.target_layers = {24};
  spec.error_scale = -0.1;
  const std::string mistakes = Mistakes(spec);
  for (const char* part : {"layers.99", "router", "w_proj", "24", "error_scale"}) {
    EXPECT_THAT(mistakes, HasSubstr(part));
  }
  spec = Spec();
  spec.error_scale = 0.0;
  EXPECT_THAT(Mistakes(spec), HasSubstr("null_arm"));
  spec.null_arm = true;
  EXPECT_FALSE(Make(spec).AnyNoise());
  spec = Spec();
  spec.apply_during = ApplyDuring::kRollout;
  spec.backward_only = true;
  EXPECT_THAT(Mistakes(spec), HasSubstr("no phase"));
  spec = Spec();
  spec.exclude_modules = {"layers"};
  EXPECT_THAT(Mistakes(spec), HasSubstr("no operator"));
  spec = Spec();
  spec.error_scale = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Mistakes(spec), HasSubstr("error_scale"));
}

// A policy's spec of each type, with the parameters it reads.
std::vector<NoiseSpec> SpecOfEveryType() {
  return {{.enabled = true, .error_scale = 0.05},
          {.enabled = true, .error_type = ErrorType::kAbsoluteGaussian, .error_scale = 0.05},
          {.enabled = true, .error_type = ErrorType::kSystematicBias, .error_scale = 0.05},
          {.enabled = true,
           .error_type = ErrorType::kSystematicBias,
           .error_scale = 0.05,
           .relative = true},
          {.enabled = true, .error_type = ErrorType::kTruncation, .error_scale = 0.05},
          {.enabled = true, .error_type = ErrorType::kDeadzone, .deadzone_threshold = 0.05},
          {.enabled = true, .error_type = ErrorType::kSaturation, .fault_magnitude = 0.05},
          {.enabled = true,
           .error_type = ErrorType::kSpike,
           .fault_magnitude = 0.05,
           .spike_probability = 0.01}};
}

TEST(NoisePolicy, TheStrengthOfEveryTypeIsItsOwnParameter) {
  for (const NoiseSpec& spec : SpecOfEveryType()) {
    const NoisePolicy policy = Make(spec);
    EXPECT_EQ(Rollout(policy, Operator::kQ, 3), 0.05);
    const OperatorError error = policy.Error(Phase::kTrain, Direction::kBackward, Operator::kQ, 3);
    EXPECT_EQ(error.type, spec.error_type);
    EXPECT_EQ(error.strength, 0.05f);
    EXPECT_EQ(error.relative, spec.relative);
    EXPECT_EQ(error.spike_probability, spec.spike_probability);
    EXPECT_FALSE(policy.Error(Phase::kRollout, Direction::kForward, Operator::kLmHead, -1).acts());
    EXPECT_THAT(policy.Describe(), HasSubstr(DescribeError(error)));
    const OperatorError evaluated =
        EvaluationPolicy(policy, 0.1).Error(Phase::kEval, Direction::kForward, Operator::kQ, 3);
    EXPECT_EQ(evaluated.type, spec.error_type);
    EXPECT_EQ(evaluated.strength, 0.1f);
    EXPECT_EQ(evaluated.spike_probability, spec.spike_probability);
  }
}

TEST(NoisePolicy, RefusesParametersThatTheTypeDoesNotRead) {
  for (const NoiseSpec& good : SpecOfEveryType()) {
    const std::string_view strength = StrengthName(good.error_type);
    NoiseSpec spec = good;
    spec.relative = true;
    if (good.error_type != ErrorType::kSystematicBias) {
      EXPECT_THAT(Mistakes(spec), HasSubstr("relative is no parameter"));
    }
    spec = good;
    spec.spike_probability = 0.1;
    if (good.error_type != ErrorType::kSpike) {
      EXPECT_THAT(Mistakes(spec), HasSubstr("spike_probability is no parameter"));
    }
    for (double NoiseSpec::*parameter :
         {&NoiseSpec::error_scale, &NoiseSpec::deadzone_threshold, &NoiseSpec::fault_magnitude}) {
      spec = good;
      if (spec.*parameter != 0.0) {
        spec.*parameter = 0.0;
        EXPECT_THAT(Mistakes(spec), HasSubstr(std::string(strength) + " is 0"));
      } else {
        spec.*parameter = 0.2;
        EXPECT_THAT(Mistakes(spec), HasSubstr("is no parameter of error_type"));
      }
    }
  }
}

TEST(NoisePolicy, RefusesParametersOutOfRange) {
  NoiseSpec spec = {.enabled = true, .error_type = ErrorType::kDeadzone, .deadzone_threshold = 1.0};
  EXPECT_THAT(Mistakes(spec), HasSubstr("deadzone_threshold 1"));
  spec = {.enabled = true, .error_type = ErrorType::kSaturation, .fault_magnitude = 1.5};
  EXPECT_THAT(Mistakes(spec), HasSubstr("fault_magnitude 1.5"));
  for (const double p : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    spec = {.enabled = true,
            .error_type = ErrorType::kSpike,
            .fault_magnitude = 0.1,
            .spike_probability = p};
    EXPECT_THAT(Mistakes(spec), HasSubstr("spike_probability"));
  }
}

TEST(NoisePolicyFingerprint, CoversTheTypeAndItsParameters) {
  std::vector<NoiseSpec> specs = SpecOfEveryType();
  specs.push_back(specs.back());
  specs.back().spike_probability = 0.02;
  specs.push_back(specs.back());
  specs.back().fault_magnitude = 0.06;
  std::set<uint64_t> fingerprints;
  for (const NoiseSpec& spec : specs) fingerprints.insert(Make(spec).Fingerprint());
  EXPECT_EQ(fingerprints.size(), specs.size());
}

TEST(NoisePolicy, TheRouterExistsInMixturesOnly) {
  NoiseSpec spec = Spec();
  spec.target_modules = {"router"};
  EXPECT_THAT(Mistakes(spec), HasSubstr("router"));
  const ModelShape mixture = {.num_layers = 4, .num_experts = 8};
  EXPECT_EQ(Rollout(Make(spec, mixture), Operator::kRouter, 3), 0.05);
  EXPECT_EQ(Rollout(Make(Spec(), mixture), Operator::kRouter, 3), 0.0);
}

TEST(NoisePolicy, AdaptersExistInAdaptedLayersAndErrByNameAlone) {
  NoiseSpec spec = Spec();
  spec.target_modules = {"q", "lora_a"};
  EXPECT_THAT(Mistakes(spec), HasSubstr("lora_a"));  // adapters are off
  const ModelShape adapted = {.num_layers = 4, .lora_layers = {1, 3}};
  EXPECT_EQ(Rollout(Make(spec, adapted), Operator::kLoraA, 3), 0.05);
  EXPECT_EQ(Rollout(Make(spec, adapted), Operator::kLoraA, 2), 0.0);
  EXPECT_EQ(Rollout(Make(spec, adapted), Operator::kLoraB, 3), 0.0);
  EXPECT_EQ(Rollout(Make(Spec(), adapted), Operator::kLoraA, 3), 0.0);
  EXPECT_TRUE(Make(Spec(), adapted).HasWeightGradient(Operator::kLoraB));
  EXPECT_FALSE(Make(Spec(), adapted).HasWeightGradient(Operator::kQ));
  EXPECT_TRUE(Make(Spec()).HasWeightGradient(Operator::kQ));
}

TEST(EvaluationPolicy, IsCleanButForTheNamedScale) {
  const NoisePolicy base = Make(Spec());
  const NoisePolicy at_ten = EvaluationPolicy(base, 0.1);
  EXPECT_EQ(at_ten.Scale(Phase::kEval, Direction::kForward, Operator::kQ, 0), 0.1);
  EXPECT_EQ(at_ten.Scale(Phase::kEval, Direction::kForward, Operator::kLmHead, kNoLayer), 0.0);
  EXPECT_EQ(Rollout(at_ten, Operator::kQ, 0), 0.0);
  EXPECT_FALSE(EvaluationPolicy(base, 0.0).AnyNoise());
}

TEST(EvaluationPolicy, PerturbsAModelTrainedWithoutError) {
  const NoisePolicy base = Make(NoiseSpec{});
  EXPECT_FALSE(base.AnyNoise());
  EXPECT_EQ(EvaluationPolicy(base, 0.05).Scale(Phase::kEval, Direction::kForward, Operator::kUp, 1),
            0.05);
}

TEST(NoisePolicyFingerprint, TellsPoliciesApart) {
  const NoisePolicy base = Make(Spec());
  EXPECT_EQ(base.Fingerprint(), Make(Spec()).Fingerprint());
  NoiseSpec spec = Spec();
  spec.error_scale = 0.06;
  EXPECT_NE(Make(spec).Fingerprint(), base.Fingerprint());
  spec = Spec();
  spec.exclude_modules = {"layers.3.mlp"};
  EXPECT_NE(Make(spec).Fingerprint(), base.Fingerprint());
  spec = Spec();
  spec.noise_key = NoiseKey::kFrozen;
  const uint64_t frozen = Make(spec).Fingerprint();
  EXPECT_NE(frozen, base.Fingerprint());
  spec.device_seed = 1;
  EXPECT_NE(Make(spec).Fingerprint(), frozen);
  EXPECT_NE(NoiseId(1, 2), NoiseId(2, 1));
}

}  // namespace
}  // namespace temper::numerics
