#include "services/config/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "services/config/derived.h"
#include "services/config/idle_fields.h"
#include "services/config/noise_plan.h"

namespace temper::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RunConfigTest : public ::testing::Test {
 protected:
  RunConfigTest() {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
  }
  ~RunConfigTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& text) {
    const std::string path = (folder_ / "run.yaml").string();
    std::ofstream(path) << text;
    return path;
  }
  std::string MistakesOf(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto config = LoadRunConfig(Write(text), overrides);
    return config.ok() ? "no mistake" : std::string(config.status().message());
  }

  std::filesystem::path folder_;
};

constexpr char kMinimal[] = "model: {path: policy}\n";

// The two templates of the findings document, section 3.4, word for word.
constexpr char kHardwareErrorTemplate[] = R"(# For HW Error Simulation (5% matmul noise)
trainer:
  noisy_ops:
    enabled: true
    error_scale: 0.05
    error_type: relative_gaussian

  noise_injection:
    enabled: true
    epoch_aware: true
    sigma_start: 0.05
    sigma_end: 0.0005
    stages_per_epoch: 5
    layer_types: ["rmsnorm"]
)";
constexpr char kQuantizationTemplate[] = R"(# For Quantization Training (MXFP4)
trainer:
  hw_error_injection:
    enabled: true
    error_type: mxfp4
    injection_point: weight
    exclude_modules: ["lm_head", "embed_tokens"]

  noise_injection:
    enabled: true
    epoch_aware: true
    sigma_start: 0.01
    sigma_end: 0.0001
    stages_per_epoch: 10
    layer_types: ["rmsnorm"]
)";

TEST_F(RunConfigTest, FillsInEveryDefault) {
  const auto config = LoadRunConfig(Write(kMinimal));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->trainer().total_updates(), 60u);
  EXPECT_EQ(config->trainer().dapo().clip_ratio_high(), 0.28);
  EXPECT_EQ(config->model().path(), (std::filesystem::canonical(folder_) / "policy").string());
  EXPECT_EQ(config->trainer().dapo().importance_sampling(), "none");
  EXPECT_THAT(Unbuilt(*config), IsEmpty());
}

TEST_F(RunConfigTest, ReportsAllMistakesAtOnceWithTheirPlaces) {
  const std::string mistakes = MistakesOf(
      "model: {path: policy}\n"
      "trainer:\n"
      "  learnin_rate: 1\n"
      "  noisy_ops: {enabled: maybe}\n"
      "  optimizer:\n"
      "    learning_rate: 1e-4\n"
      "    learning_rate: 2e-4\n"
      "  threads: -1\n"
      "reward: {rule: lenient}\n");
  EXPECT_THAT(
      mistakes,
      HasSubstr("run.yaml:3:3: unknown key trainer.learnin_rate (did you mean learner_noise?)"));
  EXPECT_THAT(mistakes,
              HasSubstr("run.yaml:4:24: trainer.noisy_ops.enabled: 'maybe' is not true or false"));
  EXPECT_THAT(
      mistakes,
      HasSubstr(
          "run.yaml:7:5: duplicate key trainer.optimizer.learning_rate, first given at line 6"));
  EXPECT_THAT(mistakes, HasSubstr("run.yaml:8:12: trainer.threads: '-1' is not a whole number"));
  EXPECT_THAT(
      mistakes,
      HasSubstr("run.yaml:9:10: reward.rule: 'lenient' is none of strict, flexible, numeric"));
}

TEST_F(RunConfigTest, TextThatIsNotYamlIsNamedWithItsPlace) {
  EXPECT_THAT(MistakesOf("trainer: {threads: 1\nmodel: ]"),
              AllOf(HasSubstr("run.yaml:2:"), HasSubstr("not YAML")));
  EXPECT_THAT(MistakesOf("- a\n- b\n"), HasSubstr("must be a block"));
}

TEST_F(RunConfigTest, NumbersMustBeWholeFiniteAndInRange) {
  EXPECT_THAT(MistakesOf(std::string(kMinimal) + "trainer: {optimizer: {learning_rate: .nan}}"),
              HasSubstr("finite"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) + "trainer: {groups_per_step: 1.5}"),
              HasSubstr("whole number"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) + "rollout: {temperature: 0}"),
              HasSubstr("rollout.temperature"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) + "rollout: {top_p: 0.9}"),
              HasSubstr("cannot reproduce"));
}

TEST_F(RunConfigTest, FindingsTemplatesLoadAsTheyStand) {
  const auto error = LoadRunConfig(Write(kHardwareErrorTemplate));
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_EQ(error->trainer().noise_injection().schedule(), "epoch_aware");
  EXPECT_THAT(Unbuilt(*error), IsEmpty());

  const auto quantized = LoadRunConfig(Write(kQuantizationTemplate));
  ASSERT_TRUE(quantized.ok()) << quantized.status();
  ASSERT_EQ(Unbuilt(*quantized).size(), 1u);
  EXPECT_THAT(Unbuilt(*quantized)[0], HasSubstr("mxfp4"));
}

TEST_F(RunConfigTest, OverridesReplaceValuesAndNameTheirMistakes) {
  const auto config = LoadRunConfig(Write(kMinimal), {"seed=9", "eval.error_scales=[0, 0.2]"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->seed(), 9u);
  EXPECT_EQ(config->eval().error_scales_size(), 2);
  EXPECT_THAT(MistakesOf(kMinimal, {"sede=9"}),
              HasSubstr("command line: unknown key sede (did you mean seed?)"));
  EXPECT_THAT(MistakesOf(kMinimal, {"seed.x=9"}), HasSubstr("seed has no keys below it"));
  EXPECT_THAT(MistakesOf(kMinimal, {"seed"}), HasSubstr("is not key.path=value"));
}

TEST_F(RunConfigTest, EpochsOnTheCommandLineReplaceTheFilesTotal) {
  const std::string file = std::string(kMinimal) + "trainer: {total_updates: 60}\n";
  const auto config =
      LoadRunConfig(Write(file), {"trainer.epochs=3", "trainer.updates_per_epoch=5"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->trainer().total_updates(), 15u);

  const std::string both = std::string(kMinimal) + "trainer: {epochs: 2, updates_per_epoch: 10}\n";
  const auto total = LoadRunConfig(Write(both), {"trainer.total_updates=7"});
  ASSERT_TRUE(total.ok()) << total.status();
  EXPECT_EQ(total->trainer().total_updates(), 7u);
}

TEST_F(RunConfigTest, InOneFileTheHorizonMustAgree) {
  EXPECT_THAT(MistakesOf(std::string(kMinimal) +
                         "trainer: {total_updates: 60, epochs: 2, updates_per_epoch: 10}\n"),
              HasSubstr("contradicts"));
}

TEST_F(RunConfigTest, ResolvedYamlReadsBackEqual) {
  const auto config = LoadRunConfig(
      Write(std::string(kHardwareErrorTemplate)),
      {"model.path=policy",
       "trainer.noise_injection.layer_sigma_config={enabled: true, layer_multipliers: {1: 1.5}}",
       "trainer.optimizer.learning_rate=0.1", "run_dir=somewhere"});
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string path = (folder_ / "resolved.yaml").string();
  std::ofstream(path) << ToYaml(*config);
  const auto again = LoadResolvedConfig(path);
  ASSERT_TRUE(again.ok()) << again.status() << ToYaml(*config);
  EXPECT_THAT(ResumeDifferences(*config, *again), IsEmpty());
  EXPECT_EQ(ToYaml(*config), ToYaml(*again));
}

TEST_F(RunConfigTest, AHorizonThatIsNoMultipleOfItsEpochsReadsBack) {
  for (const char* total : {"trainer.total_updates=0", "trainer.total_updates=7"}) {
    const auto config = LoadRunConfig(Write(kMinimal), {total});
    ASSERT_TRUE(config.ok()) << config.status();
    const std::string path = (folder_ / "resolved.yaml").string();
    std::ofstream(path) << ToYaml(*config);
    const auto again = LoadResolvedConfig(path);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->trainer().total_updates(), config->trainer().total_updates());
  }
}

TEST_F(RunConfigTest, FingerprintCoversWhatDecidesAResultAndNothingElse) {
  const auto base = LoadRunConfig(Write(kMinimal));
  const auto workers = LoadRunConfig(
      Write(kMinimal), {"local.rollout_workers=3", "checkpoint.every=1", "run_dir=x"});
  const auto seed = LoadRunConfig(Write(kMinimal), {"seed=2"});
  ASSERT_TRUE(base.ok() && workers.ok() && seed.ok());
  EXPECT_EQ(Fingerprint(*base), Fingerprint(*workers));
  EXPECT_NE(Fingerprint(*base), Fingerprint(*seed));
  EXPECT_THAT(ResumeDifferences(*base, *seed), testing::ElementsAre("seed: 1 -> 2"));
}

TEST_F(RunConfigTest, NoiseThatWouldDoNothingIsRefused) {
  EXPECT_THAT(
      MistakesOf(std::string(kMinimal) +
                 "trainer: {noise_injection: {enabled: true, sigma_start: 0.05, sigma_end: 0}}"),
      HasSubstr("sigma_end"));
  const auto config = LoadRunConfig(
      Write(std::string(kMinimal) + "trainer: {noisy_ops: {enabled: true, error_scale: 0}}"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(NoisePolicyFromConfig(*config, {.num_layers = 2}).ok());
  const auto matches_nothing = LoadRunConfig(Write(
      std::string(kMinimal) + "trainer: {noisy_ops: {enabled: true, target_modules: [layers.9]}}"));
  ASSERT_TRUE(matches_nothing.ok());
  EXPECT_FALSE(NoisePolicyFromConfig(*matches_nothing, {.num_layers = 2}).ok());
}

TEST_F(RunConfigTest, EveryErrorTypeBecomesAPolicyWithItsOwnParameters) {
  struct Case {
    const char* yaml;
    const char* described;
    std::vector<double> scales;  // of the evaluations
  };
  for (const Case& c : {
           Case{"error_scale: 0.02", "relative_gaussian 0.02 on", {0, 0.05, 0.1, 0.02}},
           Case{"error_type: absolute_gaussian", "absolute_gaussian 0.05 on", {0, 0.05, 0.1}},
           Case{"error_type: systematic_bias", "systematic_bias 0.05 on", {0, 0.05, 0.1}},
           Case{"error_type: systematic_bias, relative: true, error_scale: 0.1",
                "systematic_bias 0.1 (relative) on",
                {0, 0.05, 0.1}},
           Case{"error_type: truncation, error_scale: 0.25",
                "truncation 0.25 on",
                {0, 0.05, 0.1, 0.25}},
           Case{"error_type: deadzone, deadzone_threshold: 0.02",
                "deadzone 0.02 on",
                {0, 0.05, 0.1, 0.02}},
           Case{"error_type: saturation, fault_magnitude: 0.3",
                "saturation 0.3 on",
                {0, 0.05, 0.1, 0.3}},
           Case{"error_type: spike, spike_probability: 0.01",
                "spike 0.1 (probability 0.01) on",
                {0, 0.05, 0.1}},
       }) {
    const auto config = LoadRunConfig(
        Write(std::string(kMinimal) + "trainer: {noisy_ops: {enabled: true, " + c.yaml + "}}\n"));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_THAT(Unbuilt(*config), IsEmpty());
    const auto policy = NoisePolicyFromConfig(*config, {.num_layers = 2});
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_THAT(policy->Describe(), HasSubstr(c.described));
    EXPECT_THAT(std::vector<double>(config->eval().error_scales().begin(),
                                    config->eval().error_scales().end()),
                testing::UnorderedElementsAreArray(c.scales));
    const auto evaluated = EvaluationPolicyFromConfig(*config, {.num_layers = 2}, 0.2);
    ASSERT_TRUE(evaluated.ok()) << evaluated.status();
    EXPECT_EQ(evaluated->error_type(), policy->error_type());
  }
}

TEST_F(RunConfigTest, AModelTrainedWithoutErrorIsEvaluatedUnderTheTypeThatIsNamed) {
  const auto config = LoadRunConfig(Write(
      std::string(kMinimal) + "trainer: {noisy_ops: {enabled: false, error_type: saturation}}\n"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(NoisePolicyFromConfig(*config, {.num_layers = 2})->AnyNoise());
  const auto evaluated = EvaluationPolicyFromConfig(*config, {.num_layers = 2}, 0.2);
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  EXPECT_THAT(evaluated->Describe(), HasSubstr("saturation 0.2"));
  EXPECT_FALSE(EvaluationPolicyFromConfig(*config, {.num_layers = 2}, 1.5).ok());
}

TEST_F(RunConfigTest, ErrorParametersOutOfRangeAreRefusedWithTheirKey) {
  const auto with = [&](const std::string& noisy) {
    return MistakesOf(std::string(kMinimal) + "trainer: {noisy_ops: {enabled: true, " + noisy +
                      "}}\n");
  };
  EXPECT_THAT(with("error_type: deadzone, deadzone_threshold: 1"),
              HasSubstr("trainer.noisy_ops.deadzone_threshold: "));
  EXPECT_THAT(with("error_type: saturation, fault_magnitude: 1.5"),
              HasSubstr("trainer.noisy_ops.fault_magnitude: "));
  EXPECT_THAT(with("error_type: saturation, fault_magnitude: 1e-9"),
              HasSubstr("below the precision of float32"));
  EXPECT_THAT(with("error_type: spike, spike_probability: 0"),
              HasSubstr("trainer.noisy_ops.spike_probability: "));
  EXPECT_THAT(with("error_type: drift"), HasSubstr("'drift' is none of relative_gaussian"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) +
                         "trainer: {noisy_ops: {enabled: true, error_type: deadzone}}\n"
                         "eval: {error_scales: [0, 1]}\n"),
              HasSubstr("eval.error_scales: "));
}

TEST_F(RunConfigTest, WhatIsGivenWithoutEffectIsRefused) {
  const auto with = [&](const std::string& trainer) {
    return MistakesOf(std::string(kMinimal) + "trainer: {" + trainer + "}\n");
  };
  EXPECT_THAT(with("noisy_ops: {enabled: true, spike_probability: 0.1}"),
              HasSubstr("run.yaml:2:38: trainer.noisy_ops.spike_probability: has no effect"));
  EXPECT_THAT(with("noise_injection: {enabled: true, layer_sigma_config: {preset: zone}}"),
              HasSubstr("has no effect without enabled: true"));
  EXPECT_THAT(with("learner_noise: fresh"), HasSubstr("has no effect without trainer.noisy_ops"));
  EXPECT_THAT(with("noisy_ops: {enabled: true, error_scale: 1e-12}"),
              HasSubstr("below the precision of float32"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) + "orchestrator: {lease_seconds: 1}\n"),
              HasSubstr("must be above twice"));
}

TEST_F(RunConfigTest, EverySettingThatAnotherMakesIdleIsRefusedWithItsName) {
  struct Case {
    const char* yaml;
    const char* key;
  };
  for (const Case& c : {
           Case{"trainer: {noisy_ops: {error_scale: 0.1}}", "trainer.noisy_ops.error_scale"},
           Case{"trainer: {hw_error_injection: {error_type: nvfp4}}",
                "trainer.hw_error_injection.error_type"},
           Case{"trainer: {noise_injection: {sigma_start: 0.1}}",
                "trainer.noise_injection.sigma_start"},
           Case{"trainer: {learner_noise: none, noisy_ops: {enabled: true, apply_during: rollout}}",
                "trainer.learner_noise"},
           Case{"trainer: {learner_noise: fresh, noisy_ops: {enabled: true, noise_key: frozen}}",
                "trainer.learner_noise"},
           Case{"trainer: {learner_noise: none,\n"
                "          noisy_ops: {enabled: true, error_gradient: straight_through}}",
                "trainer.noisy_ops.error_gradient"},
           Case{"trainer: {noise_injection: {enabled: true, schedule: epoch_aware, num_stages: 3}}",
                "trainer.noise_injection.num_stages"},
           Case{"trainer: {noise_injection: {enabled: true, stages_per_epoch: 3}}",
                "trainer.noise_injection.stages_per_epoch"},
           Case{"trainer: {noise_injection: {enabled: true, schedule: constant, sigma_end: 0.01}}",
                "trainer.noise_injection.sigma_end"},
           Case{"trainer: {noise_injection: {enabled: true, layer_sigma_config: "
                "{default_multiplier: 2}}}",
                "trainer.noise_injection.layer_sigma_config.default_multiplier"},
           Case{"trainer: {dapo: {dynamic_sampling: false, max_rounds: 5}}",
                "trainer.dapo.max_rounds"},
           Case{"trainer: {dapo: {old_logprob: recorded, importance_sampling: token}}",
                "trainer.dapo.importance_sampling"},
           Case{"trainer: {dapo: {importance_sampling: none, importance_cap: 3}}",
                "trainer.dapo.importance_cap"},
           Case{"trainer: {gap_probe_every: 0, gap_probe_groups: 4}", "trainer.gap_probe_groups"},
           Case{"reward: {overlong_factor: 0.5}", "reward.overlong_factor"},
           Case{"eval: {error_scales: [0], noise_seeds: 5}", "eval.noise_seeds"},
           Case{"trainer: {noisy_ops: {enabled: true, error_type: truncation}}\n"
                "eval: {noise_seeds: 5}",
                "eval.noise_seeds"},
           Case{"trainer: {noisy_ops: {enabled: true, error_type: spike, error_scale: 0.1}}",
                "trainer.noisy_ops.error_scale"},
           Case{"trainer: {noisy_ops: {enabled: true, error_type: truncation, noise_key: frozen}}",
                "trainer.noisy_ops.noise_key"},
           Case{"trainer: {learner_noise: fresh, noisy_ops: {enabled: true, error_type: deadzone}}",
                "trainer.learner_noise"},
           Case{"trainer: {noisy_ops: {enabled: true, error_type: spike,\n"
                "                      error_gradient: straight_through}}",
                "trainer.noisy_ops.error_gradient"},
           Case{"trainer: {noisy_ops: {enabled: true, error_type: spike, relative: true}}",
                "trainer.noisy_ops.relative"},
           Case{"dataset: {path: somewhere}", "dataset.path"},
           Case{"dataset: {name: gsm8k, path: somewhere, max_steps: 2}", "dataset.max_steps"},
       }) {
    EXPECT_THAT(MistakesOf(std::string(kMinimal) + c.yaml + "\n"),
                HasSubstr(std::string(c.key) + ": has no effect"))
        << c.yaml;
  }
}

TEST_F(RunConfigTest, AnOverrideMayMakeASettingOfTheFileIdle) {
  const std::string file = std::string(kMinimal) + "trainer: {dapo: {max_rounds: 2}}\n";
  EXPECT_EQ(MistakesOf(file, {"trainer.dapo.dynamic_sampling=false"}), "no mistake");
  EXPECT_THAT(
      MistakesOf(file, {"trainer.dapo.dynamic_sampling=false", "trainer.dapo.max_rounds=4"}),
      HasSubstr("command line: trainer.dapo.max_rounds: has no effect"));
}

TEST_F(RunConfigTest, ClipRatiosOfOneOptimizerStepAreSaidToBeIdleAndNotRefused) {
  const auto config =
      LoadRunConfig(Write(std::string(kMinimal) + "trainer: {dapo: {clip_ratio_high: 0.25}}\n"));
  ASSERT_TRUE(config.ok()) << config.status();
  const auto idle = IdleFields(*config);
  ASSERT_EQ(idle.size(), 1u);
  EXPECT_EQ(idle[0].key, "trainer.dapo.clip_ratio_high");
  EXPECT_FALSE(idle[0].refused);
}

TEST_F(RunConfigTest, RecordedOldLogprobsTakeNoWeights) {
  const auto config = LoadRunConfig(
      Write(kMinimal), {"trainer.max_staleness=2", "trainer.dapo.old_logprob=recorded"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->trainer().dapo().importance_sampling(), "none");
}

TEST_F(RunConfigTest, TheGapIsProbedUnlessAqnCannotBeRecreated) {
  const auto plain = LoadRunConfig(Write(kMinimal));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->trainer().gap_probe_every(), 10u);
  const std::string per_group =
      std::string(kMinimal) + "trainer: {noise_injection: {enabled: true, draw: per_group}}\n";
  const auto drawn_per_group = LoadRunConfig(Write(per_group));
  ASSERT_TRUE(drawn_per_group.ok()) << drawn_per_group.status();
  EXPECT_EQ(drawn_per_group->trainer().gap_probe_every(), 0u);
  EXPECT_THAT(MistakesOf(per_group, {"trainer.gap_probe_every=5"}),
              HasSubstr("trainer.gap_probe_every: a probe re-creates AQN"));
  EXPECT_THAT(MistakesOf(kMinimal, {"trainer.gap_probe_groups=0"}),
              HasSubstr("trainer.gap_probe_groups"));
}

TEST_F(RunConfigTest, AnotherModelOrDataSetIsADifferenceOnResume) {
  const auto base = LoadRunConfig(Write(kMinimal));
  const auto other =
      LoadRunConfig(Write(kMinimal), {"model.path=/elsewhere", "local.rollout_workers=2"});
  ASSERT_TRUE(base.ok() && other.ok());
  const auto differences = ResumeDifferences(*base, *other);
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_THAT(differences[0], HasSubstr("model.path"));
}

TEST_F(RunConfigTest, DeeplyNestedOrHugeTextIsRefused) {
  EXPECT_THAT(MistakesOf("seed: " + std::string(2 << 20, '1')), HasSubstr("larger than"));
  std::string nodes = std::string(kMinimal) + "eval: {error_scales: [";
  for (int i = 0; i < 20000; ++i) nodes += "0, ";
  EXPECT_THAT(MistakesOf(nodes + "0]}"), HasSubstr("too large"));
}

}  // namespace
}  // namespace temper::config
