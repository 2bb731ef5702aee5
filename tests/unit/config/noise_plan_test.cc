#include "services/config/noise_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/config/derived.h"
#include "tests/unit/config/run_config_fixture.h"

namespace temper::config {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

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

TEST_F(RunConfigTest, AqnPerWorkerIsOfAsynchronousRunsAndAqnInTheLearnerOfSynchronousOnes) {
  const auto with = [&](const std::string& aqn) {
    return std::string(kMinimal) + "trainer: {noise_injection: {enabled: true, " + aqn + "}}\n";
  };
  EXPECT_TRUE(LoadRunConfig(Write(with("draw: per_group, where: both"))).ok());
  EXPECT_THAT(MistakesOf(with("draw: per_worker")), HasSubstr("max_staleness above 0"));
  EXPECT_TRUE(LoadRunConfig(Write(with("draw: per_worker")), {"trainer.max_staleness=1"}).ok());
  EXPECT_THAT(MistakesOf(with("where: both"), {"trainer.max_staleness=1"}),
              HasSubstr("trainer.noise_injection.where: both"));
  EXPECT_THAT(MistakesOf(with("draw: per_version"), {"trainer.loss=sft"}),
              HasSubstr("trainer.noise_injection: AQN perturbs what rollouts sample with"));
  EXPECT_THAT(MistakesOf(with("layer_types: [conv]")), HasSubstr("none of rmsnorm, linear"));
}

}  // namespace
}  // namespace temper::config
