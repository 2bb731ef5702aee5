#include "services/config/idle_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/config/noise_plan.h"
#include "tests/unit/config/run_config_fixture.h"

namespace temper::config {
namespace {

using ::testing::HasSubstr;

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

TEST_F(RunConfigTest, TheGapIsProbedEveryTenthStepUnlessSaidOtherwise) {
  const auto plain = LoadRunConfig(Write(kMinimal));
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->trainer().gap_probe_every(), 10u);
  EXPECT_THAT(MistakesOf(kMinimal, {"trainer.gap_probe_groups=0"}),
              HasSubstr("trainer.gap_probe_groups"));
}

TEST_F(RunConfigTest, AFinalNormThatNoPatternSelectsIsNotLeftOutTwice) {
  const auto with = [&](const std::string& patterns) {
    return std::string(kMinimal) +
           "trainer: {noise_injection: {enabled: true, final_norm: false, " + "target_modules: [" +
           patterns + "]}}\n";
  };
  EXPECT_THAT(MistakesOf(with("input_norm")), HasSubstr("do not select the final norm"));
  EXPECT_TRUE(LoadRunConfig(Write(with("input_norm, model.norm"))).ok());
}

}  // namespace
}  // namespace temper::config
