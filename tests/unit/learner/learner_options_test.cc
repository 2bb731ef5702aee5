#include "learner/learner_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "services/config/run_config.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::learner {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

// The options of a recipe with these overrides.
absl::StatusOr<LearnerOptions> OptionsWith(const std::vector<std::string>& overrides) {
  testing::TempDir dir;
  std::ofstream(dir.File("run.yaml")) << "model: {path: policy}\n";
  const auto config = config::LoadRunConfig(dir.File("run.yaml"), overrides);
  EXPECT_THAT(config, IsOk());
  return LearnerOptionsFromConfig(*config, {.vocab_size = 40, .num_layers = 2});
}

DapoRules RulesWith(const std::vector<std::string>& overrides) {
  const auto options = OptionsWith(overrides);
  EXPECT_THAT(options, IsOk());
  return options->dapo;
}

TEST(LearnerOptionsTest, EveryNameOfARuleMeansThatRule) {
  const std::string aggregation = "trainer.dapo.loss_aggregation=";
  EXPECT_EQ(RulesWith({}).aggregation, LossAggregation::kTokenMean);
  EXPECT_EQ(RulesWith({aggregation + "seq-mean-token-sum"}).aggregation,
            LossAggregation::kSeqMeanTokenSum);
  EXPECT_EQ(RulesWith({aggregation + "seq-mean-token-mean"}).aggregation,
            LossAggregation::kSeqMeanTokenMean);
  EXPECT_EQ(RulesWith({aggregation + "constant"}).aggregation, LossAggregation::kConstant);

  const std::string old_logprob = "trainer.dapo.old_logprob=";
  EXPECT_EQ(RulesWith({}).old_logprob, OldLogprob::kCurrent);
  EXPECT_EQ(RulesWith({old_logprob + "recomputed"}).old_logprob, OldLogprob::kRecomputed);
  EXPECT_EQ(RulesWith({old_logprob + "recorded"}).old_logprob, OldLogprob::kRecorded);
  EXPECT_EQ(RulesWith({"trainer.minibatches_per_step=4"}).old_logprob, OldLogprob::kRecomputed);

  const std::string importance = "trainer.dapo.importance_sampling=";
  using Mode = numerics::ImportanceMode;
  EXPECT_EQ(RulesWith({}).importance.mode, Mode::kNone);
  EXPECT_EQ(RulesWith({"trainer.max_staleness=1"}).importance.mode, Mode::kToken);
  EXPECT_EQ(RulesWith({importance + "sequence"}).importance.mode, Mode::kSequence);
  EXPECT_EQ(RulesWith({"trainer.max_staleness=1", importance + "none"}).importance.mode,
            Mode::kNone);
}

TEST(LearnerOptionsTest, EveryDrawOfTheLearnerReachesItsPolicy) {
  const std::string noisy = "trainer.noisy_ops={enabled: true, error_scale: 0.1}";
  for (const auto& [name, draw] : {std::pair{"same", numerics::LearnerNoise::kSame},
                                   std::pair{"fresh", numerics::LearnerNoise::kFresh},
                                   std::pair{"none", numerics::LearnerNoise::kNone}}) {
    const auto options = OptionsWith({noisy, std::string("trainer.learner_noise=") + name});
    ASSERT_THAT(options, IsOk());
    EXPECT_EQ(options->noise.learner_noise(), draw);
    EXPECT_EQ(options->noise.Any(numerics::Phase::kTrain, numerics::Direction::kForward),
              draw != numerics::LearnerNoise::kNone);
    EXPECT_EQ(options->dapo.importance.mode, draw == numerics::LearnerNoise::kSame
                                                 ? numerics::ImportanceMode::kNone
                                                 : numerics::ImportanceMode::kToken);
  }
}

TEST(LearnerOptionsTest, ProbesAreThoseOfTheConfiguration) {
  const auto options = OptionsWith({"trainer.gap_probe_every=4", "trainer.gap_probe_groups=3"});
  ASSERT_THAT(options, IsOk());
  EXPECT_EQ(options->gap_probe_every, 4u);
  EXPECT_EQ(options->gap_probe_groups, 3u);
}

TEST(LearnerOptionsTest, AKlCoefficientIsRefusedWithItsName) {
  EXPECT_THAT(OptionsWith({"trainer.dapo.kl_coefficient=0.1"}).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("trainer.dapo.kl_coefficient")));
}

}  // namespace
}  // namespace temper::learner
