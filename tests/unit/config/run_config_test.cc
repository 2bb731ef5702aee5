#include "services/config/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "services/config/derived.h"
#include "services/config/idle_fields.h"
#include "services/config/injection_plan.h"
#include "services/config/lora_selection.h"
#include "services/config/noise_plan.h"
#include "tests/unit/config/run_config_fixture.h"

namespace temper::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
  EXPECT_THAT(Unbuilt(*quantized), IsEmpty());
  EXPECT_EQ(quantized->trainer().hw_error_injection().injection_point(), "weight");
  // AQN stands between sampler and learner, the replayed injection does not.
  EXPECT_EQ(quantized->trainer().dapo().importance_sampling(), "token");
  const auto alone =
      LoadRunConfig(Write(kQuantizationTemplate), {"trainer.noise_injection.enabled=false"});
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->trainer().dapo().importance_sampling(), "none");
}

TEST_F(RunConfigTest, AnInjectionThatCannotBeIsRefusedWithTheReason) {
  const auto with = [&](const std::string& block) {
    return MistakesOf(std::string(kMinimal) + "trainer: {hw_error_injection: {enabled: true, " +
                      block + "}}\n");
  };
  EXPECT_THAT(with("error_type: mxfp5"), HasSubstr("trainer.hw_error_injection.error_type"));
  EXPECT_THAT(with("injection_point: nowhere"), HasSubstr("'nowhere' is none of"));
  EXPECT_THAT(with("injection_point: input, block_2d: true"), HasSubstr("block_2d"));
  EXPECT_THAT(with("error_type: nvfp4, block_2d: true"), HasSubstr("block_2d"));
  EXPECT_THAT(with("error_type: relative_gaussian"),
              HasSubstr("error_scale is 0; say null_arm: true"));
  EXPECT_THAT(with("error_type: relative_gaussian, error_scale: 1e-12"),
              HasSubstr("below the precision of float32"));
  EXPECT_THAT(with("error_type: relative_gaussian, error_scale: 0.1, stochastic_rounding: true"),
              HasSubstr("stochastic_rounding: has no effect"));
  EXPECT_THAT(with("error_scale: 0.1"),
              HasSubstr("error_scale: has no effect on error_type mxfp4"));
  EXPECT_THAT(with("error_type: saturation, error_scale: 0.1"), HasSubstr("has no effect"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) +
                         "trainer: {learner_noise: none, hw_error_injection: {enabled: true, "
                         "apply_during: training}}\n"),
              HasSubstr("leave no phase"));
  EXPECT_THAT(MistakesOf(std::string(kMinimal) +
                         "trainer: {learner_noise: fresh, hw_error_injection: {enabled: true}}\n"),
              HasSubstr("it draws nothing"));
}

TEST_F(RunConfigTest, AnInjectionIsPartOfTheNoiseThatTheModelIsCheckedFor) {
  const auto policy = [&](const std::string& block) {
    const auto config = LoadRunConfig(Write(
        std::string(kMinimal) + "trainer: {hw_error_injection: {enabled: true, " + block + "}}\n"));
    EXPECT_TRUE(config.ok()) << config.status();
    return NoisePolicyFromConfig(*config, {.num_layers = 4});
  };
  EXPECT_THAT(std::string(policy("target_modules: [layers.9]").status().message()),
              HasSubstr("selects no operator"));
  EXPECT_THAT(std::string(policy("target_layers: [4]").status().message()), HasSubstr("0 .. 3"));
  EXPECT_THAT(std::string(policy("exclude_modules: [self_attn, mlp]").status().message()),
              HasSubstr("leave no operator"));
  const auto one = policy("target_layers: [0, 1]"), other = policy("target_layers: [0, 2]");
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE(NoiseId(*one, {}), NoiseId(*other, {}));
  EXPECT_THAT(one->injection().Describe(), HasSubstr("mxfp4 on weights of q[0,1] k[0,1]"));
}

TEST_F(RunConfigTest, ARunWithAnInjectionIsEvaluatedUnderIt) {
  const auto evaluation = [&](const std::string& trainer) {
    const auto config =
        LoadRunConfig(Write(std::string(kMinimal) + "trainer: {" + trainer + "}\n"));
    EXPECT_TRUE(config.ok()) << config.status();
    return InjectedEvaluationOf(*config);
  };
  EXPECT_FALSE(evaluation("noisy_ops: {enabled: true}").has_value());
  EXPECT_EQ(evaluation("hw_error_injection: {enabled: true}")->error_scale, 0.0);
  EXPECT_EQ(evaluation("hw_error_injection: {enabled: true}")->noise_seeds, 1u);
  const auto both = evaluation(
      "noisy_ops: {enabled: true, error_scale: 0.2}, hw_error_injection: {enabled: true}");
  EXPECT_EQ(both->error_scale, 0.2);
  EXPECT_EQ(both->noise_seeds, 3u);
  EXPECT_EQ(
      evaluation("hw_error_injection: {enabled: true, stochastic_rounding: true}")->noise_seeds,
      3u);
  EXPECT_FALSE(evaluation("null_arm: true, hw_error_injection: {enabled: true, error_type: "
                          "relative_gaussian, error_scale: 0}")
                   .has_value());
}

TEST_F(RunConfigTest, OneNoiseSeedOfAnInjectionThatDrawsIsASetting) {
  const std::string drawn = std::string(kMinimal) +
                            "trainer: {hw_error_injection: {enabled: true, "
                            "stochastic_rounding: true}}\n";
  EXPECT_EQ(MistakesOf(drawn + "eval: {error_scales: [0], noise_seeds: 1}\n"), "no mistake");
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

TEST_F(RunConfigTest, AdaptersAreReadCheckedAndPartOfWhatDecidesTheResult) {
  const std::string block = "trainer:\n  lora: {enabled: true, rank: 8, alpha: 4}\n";
  const auto config = LoadRunConfig(Write(block));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(Unbuilt(*config), IsEmpty());
  const numerics::LoraSelection selection = LoraSelectionFromConfig(*config);
  EXPECT_TRUE(selection.enabled);
  EXPECT_EQ(selection.rank, 8);
  EXPECT_EQ(selection.alpha, 4.0);
  EXPECT_EQ(LoraSelectionFromConfig(*LoadRunConfig(Write(""))).enabled, false);
  const auto other = LoadRunConfig(Write(block), {"trainer.lora.rank=16"});
  EXPECT_NE(Fingerprint(*config), Fingerprint(*other));
  const auto started = LoadRunConfig(Write(block), {"trainer.lora.adapter=somewhere"});
  EXPECT_EQ(Fingerprint(*config), Fingerprint(*started)) << "a path, as that of the model";
  EXPECT_TRUE(std::filesystem::path(started->trainer().lora().adapter()).is_absolute());

  EXPECT_THAT(MistakesOf(block, {"trainer.lora.rank=0"}), HasSubstr("trainer.lora.rank: 0"));
  EXPECT_THAT(MistakesOf(block, {"trainer.lora.alpha=0"}), HasSubstr("trainer.lora.alpha"));
  EXPECT_THAT(MistakesOf("trainer:\n  lora: {target_modules: [q]}\n"),
              HasSubstr("no effect without trainer.lora.enabled"));
  EXPECT_THAT(MistakesOf(block, {"trainer.loss=sft", "trainer.sft.fresh_weights=true"}),
              HasSubstr("trainer.sft.fresh_weights: adapters need a base"));
}

}  // namespace
}  // namespace temper::config
