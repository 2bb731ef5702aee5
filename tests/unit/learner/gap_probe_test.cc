#include "learner/gap_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "learner/dapo_update.h"
#include "learner/publisher.h"
#include "model/decode_engine.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/training_fixture.h"

namespace temper::learner {
namespace {

using numerics::LearnerNoise;
using ::temper::testing::AllWeights;
using ::temper::testing::IsOk;
using ::temper::testing::PolicyForTest;
using ::temper::testing::TinyParameters;
using ::temper::testing::TrainerForTest;

constexpr uint64_t kSeed = 3;
constexpr uint32_t kSamples = 3;
constexpr char kWorker[] = "rollout_worker-2";

numerics::AqnPlan ConstantAqn() {
  return {.enabled = true,
          .schedule = numerics::AqnSchedule::kConstant,
          .sigma_start = 0.05,
          .total_steps = 9};
}

PolicyTrainerOptions TrainerOptions(LearnerNoise draw, bool aqn) {
  return {.learning_rate = 1e-2,
          .run_seed = kSeed,
          .noise = PolicyForTest(0.1, draw),
          .aqn = aqn ? ConstantAqn() : numerics::AqnPlan()};
}

// A learner that has probed nothing yet, and the engine of a rollout worker beside it.
class GapProbeTest : public ::testing::Test {
 protected:
  void Start(LearnerNoise draw, bool aqn, const numerics::InjectionSpec& injection = {}) {
    PolicyTrainerOptions options = TrainerOptions(draw, aqn);
    options.noise.set_injection(
        numerics::InjectionPolicy::Create(injection, {.num_layers = 2}).value());
    StartWith(std::move(options));
  }
  void StartWith(PolicyTrainerOptions options) {
    options_ = std::move(options);
    trainer_ = TrainerForTest(TinyParameters(), options_);
    engine_ = *model::DecodeEngine::Create({.config = trainer_->parameters().config});
    probe_ = std::make_unique<GapProbe>(
        GapProbeOptions{.every = 1, .groups = 2, .max_staleness = 1, .rules = rules_},
        trainer_.get());
    BringOut();
  }

  // The trained weights go to the probe and to the worker, as version state().step.
  void BringOut() {
    const uint64_t version = trainer_->state().step;
    const Publisher publisher({.run_id = "run", .aqn = options_.aqn, .bucket_bytes = 1 << 16},
                              nullptr, nullptr);
    auto built = publisher.Build(version, model::TrainedTensors(trainer_->parameters()),
                                 model::TrainedViewsOf(trainer_->parameters()));
    ASSERT_THAT(built, IsOk());
    probe_->Keep(*std::move(built));
    const auto t = static_cast<int64_t>(version);
    ASSERT_THAT(engine_->Install(trainer_->parameters(), version,
                                 {.plan = &options_.aqn,
                                  .sigma = numerics::Sigma(options_.aqn, t),
                                  .step = t,
                                  .run_seed = kSeed,
                                  .worker = numerics::AqnWorker(kWorker)},
                                 {.policy = &options_.noise.injection(), .run_seed = kSeed}),
                IsOk());
  }

  // Groups as the worker's engine samples them from the version that it has.
  std::vector<RolloutGroup> Sample(uint64_t first, int groups) {
    model::GenerateRequest request;
    request.policy = &options_.noise;
    request.phase = numerics::Phase::kRollout;
    request.seed = kSeed;
    request.max_completion_tokens = 12;
    request.aqn = options_.aqn.enabled;
    for (int i = 0; i < groups; ++i) {
      model::PromptGroup& group = request.groups.emplace_back();
      group.scope = first + static_cast<uint64_t>(i);
      group.samples = kSamples;
      group.prompt_ids = {5, 17, 40 + i, 9};
    }
    auto generated = engine_->Generate(request, {});
    EXPECT_THAT(generated, IsOk());
    std::vector<RolloutGroup> sampled;
    for (size_t g = 0; g < request.groups.size(); ++g) {
      RolloutGroup group = {.group_index = request.groups[g].scope,
                            .prompt_token_ids = request.groups[g].prompt_ids,
                            .worker = kWorker,
                            .oldest_version = trainer_->state().step,
                            .newest_version = trainer_->state().step};
      for (model::Completion& completion : generated->groups[g].completions) {
        SampledCompletion& own = group.completions.emplace_back();
        own.token_ids = std::move(completion.token_ids);
        own.rollout_logprobs = std::move(completion.logprobs);
        own.score.reward = group.completions.size() % 2 == 0 ? 1.0 : 0.0;
        own.score.accuracy = own.score.reward;
      }
      sampled.push_back(std::move(group));
    }
    return sampled;
  }

  DapoStepResult Train(const std::vector<RolloutGroup>& groups) {
    auto result = RunDapoStep(groups, {.rules = rules_}, trainer_.get(), nullptr);
    EXPECT_THAT(result, IsOk());
    trainer_->CloseStep(false);
    return *std::move(result);
  }

  GapSplit Probe(const std::vector<RolloutGroup>& groups) {
    auto split = probe_->Run(trainer_->state().step + 1, groups);
    EXPECT_THAT(split, IsOk());
    EXPECT_TRUE(split->has_value());
    return **split;
  }

  static void ExpectSumIsWhole(const GapSplit& split) {
    EXPECT_NEAR(split.precision.sum + split.aqn.sum + split.staleness.sum + split.noise.sum,
                split.whole.sum, 1e-9 * std::max(1.0, split.whole.abs_sum));
  }

  const DapoRules rules_;
  PolicyTrainerOptions options_;
  std::unique_ptr<PolicyTrainer> trainer_;
  std::unique_ptr<model::DecodeEngine> engine_;
  std::unique_ptr<GapProbe> probe_;
};

TEST_F(GapProbeTest, OnPolicyTheLearnersGapIsAqnAloneToTheBit) {
  Start(LearnerNoise::kSame, /*aqn=*/true);
  const auto groups = Sample(4, 2);
  const GapSplit split = Probe(groups);
  EXPECT_EQ(split.groups, 2u);
  EXPECT_EQ(split.precision.abs_max, 0.0) << "the sampler's passes were not re-created";
  EXPECT_EQ(split.staleness.abs_max, 0.0);
  EXPECT_GT(split.aqn.abs_max, 1e-4);
  EXPECT_GT(split.noise.abs_max, 1e-3);
  ExpectSumIsWhole(split);
  const DapoStepResult step = Train(groups);
  EXPECT_EQ(static_cast<uint64_t>(step.gap.tokens), split.tokens);
  EXPECT_DOUBLE_EQ(step.gap.abs_sum, split.aqn.abs_sum) << "replayed error: no other gap";
  EXPECT_DOUBLE_EQ(-step.gap.k1_sum, split.aqn.sum);
}

TEST_F(GapProbeTest, EveryDrawOfAqnIsRecreatedToTheBit) {
  for (const auto scope : {numerics::AqnDrawScope::kPerGroup, numerics::AqnDrawScope::kPerWorker}) {
    PolicyTrainerOptions options = TrainerOptions(LearnerNoise::kSame, /*aqn=*/true);
    options.aqn.draw = scope;
    StartWith(options);
    const auto groups = Sample(4, 2);
    const GapSplit split = Probe(groups);
    EXPECT_EQ(split.precision.abs_max, 0.0) << "another draw than the sampler's";
    EXPECT_GT(split.aqn.abs_max, 1e-4);
    ExpectSumIsWhole(split);
    EXPECT_DOUBLE_EQ(Train(groups).gap.abs_sum, split.aqn.abs_sum);
  }
}

TEST_F(GapProbeTest, WithAqnInTheLearnerTooThereIsNoGap) {
  for (const auto scope :
       {numerics::AqnDrawScope::kPerVersion, numerics::AqnDrawScope::kPerGroup}) {
    PolicyTrainerOptions options = TrainerOptions(LearnerNoise::kSame, /*aqn=*/true);
    options.aqn.draw = scope;
    options.aqn.in_learner = true;
    StartWith(options);
    for (int step = 0; step < 2; ++step) {
      const auto groups = Sample(4 + 2 * static_cast<uint64_t>(step), 2);
      const GapSplit split = Probe(groups);
      EXPECT_EQ(split.precision.abs_max, 0.0);
      EXPECT_EQ(split.aqn.abs_max, 0.0) << "the learner's norms are the sampler's";
      EXPECT_GT(split.noise.abs_max, 1e-3);
      const DapoStepResult trained = Train(groups);
      EXPECT_EQ(trained.gap.abs_max, 0.0);
      EXPECT_GT(trained.counters.Aqn(numerics::Phase::kTrain).stats.changed, 0u);
      BringOut();
    }
  }
}

TEST_F(GapProbeTest, WithoutErrorInTheLearnerItsGapIsTheWhole) {
  Start(LearnerNoise::kNone, /*aqn=*/true);
  const auto groups = Sample(4, 2);
  const GapSplit split = Probe(groups);
  EXPECT_EQ(split.precision.abs_max, 0.0);
  ExpectSumIsWhole(split);
  const DapoStepResult step = Train(groups);
  EXPECT_DOUBLE_EQ(step.gap.abs_sum, split.whole.abs_sum);
  EXPECT_DOUBLE_EQ(step.gap.abs_max, split.whole.abs_max);
}

TEST_F(GapProbeTest, StalenessIsTheChangeOfTheWeightsSinceTheTokensWereSampled) {
  Start(LearnerNoise::kSame, /*aqn=*/false);
  const auto stale = Sample(4, 2);
  Train(Sample(0, 2));
  BringOut();
  const GapSplit split = Probe(stale);
  EXPECT_EQ(split.precision.abs_max, 0.0) << "not the weights that sampled";
  EXPECT_EQ(split.aqn.abs_max, 0.0);
  EXPECT_GT(split.staleness.abs_max, 1e-4);
  ExpectSumIsWhole(split);
  const DapoStepResult step = Train(stale);
  EXPECT_DOUBLE_EQ(step.gap.abs_sum, split.staleness.abs_sum);
}

// Of quantized operands and of weights that are drawn for: the draw belongs to the version.
TEST_F(GapProbeTest, AnInjectionIsReplayedToTheBitUnderTheVersionThatSampled) {
  for (const numerics::InjectionSpec& injection :
       {numerics::InjectionSpec{.enabled = true,
       .format = numerics::FormatSpec{.format = numerics::NumberFormat::kNvfp4},
       .point = numerics::InjectionPoint::kBoth},
        numerics::InjectionSpec{.enabled = true,
        .error = {.strength = 0.1f},
        .point = numerics::InjectionPoint::kWeight}}) {
    Start(LearnerNoise::kSame, /*aqn=*/false, injection);
    const auto stale = Sample(4, 2);
    const GapSplit on_policy = Probe(stale);
    EXPECT_EQ(on_policy.whole.abs_max - on_policy.noise.abs_max, 0.0);
    EXPECT_EQ(on_policy.precision.abs_max, 0.0);
    EXPECT_GT(on_policy.noise.abs_max, 1e-3);
    EXPECT_EQ(Train(stale).gap.abs_max, 0.0);
    BringOut();
    const GapSplit split = Probe(stale);
    EXPECT_EQ(split.precision.abs_max, 0.0) << "not the weights that sampled";
    EXPECT_GT(split.staleness.abs_max, 1e-4);
    ExpectSumIsWhole(split);
  }
}

TEST_F(GapProbeTest, AGroupOfAVersionThatIsNoLongerKeptIsPassedOver) {
  Start(LearnerNoise::kSame, /*aqn=*/false);
  const auto stale = Sample(4, 2);
  for (int step = 0; step < 2; ++step) {
    Train(Sample(0, 2));
    BringOut();
  }
  const GapSplit split = Probe(stale);
  EXPECT_EQ(split.groups, 0u);
  EXPECT_EQ(split.tokens, 0u);
}

TEST_F(GapProbeTest, AProbeChangesNothing) {
  std::vector<std::vector<float>> weights;
  std::vector<numerics::NoiseCounters> counters;
  for (const bool probing : {false, true}) {
    Start(LearnerNoise::kFresh, /*aqn=*/true);
    const auto stale = Sample(4, 2);
    for (uint64_t step = 0; step < 3; ++step) {
      const auto groups = step == 1 ? stale : Sample(8 + 2 * step, 2);
      if (probing) Probe(groups);
      counters.push_back(Train(groups).counters);
      BringOut();
    }
    weights.push_back(AllWeights(trainer_->parameters()));
  }
  EXPECT_EQ(weights[0], weights[1]);
  for (size_t step = 0; step < 3; ++step) EXPECT_EQ(counters[step], counters[step + 3]) << step;
}

TEST_F(GapProbeTest, MicroBatchesAndMasksAreThoseOfTheUpdate) {
  Start(LearnerNoise::kSame, /*aqn=*/true);
  auto groups = Sample(4, 2);
  const GapSplit whole = Probe(groups);
  DapoRules masking;
  masking.mask_truncated = true;
  groups[0].completions[1].truncated = true;
  GapProbe cut({.every = 1, .groups = 2, .micro_batch_tokens = 10, .rules = masking},
               trainer_.get());
  const auto split = cut.Run(1, groups);
  ASSERT_THAT(split, IsOk());
  EXPECT_EQ((*split)->tokens + groups[0].completions[1].token_ids.size(), whole.tokens);
  EXPECT_EQ((*split)->precision.abs_max, 0.0);
  EXPECT_LE((*split)->aqn.abs_sum, whole.aqn.abs_sum);
}

TEST_F(GapProbeTest, NothingIsProbedWhereNothingIsDue) {
  Start(LearnerNoise::kSame, /*aqn=*/false);
  GapProbe seldom({.every = 3, .groups = 2}, trainer_.get());
  const auto groups = Sample(4, 2);
  for (const auto& [step, due] : {std::pair{2u, false}, std::pair{3u, true}}) {
    const auto split = seldom.Run(step, groups);
    ASSERT_THAT(split, IsOk());
    EXPECT_EQ(split->has_value(), due) << step;
  }
  const auto empty = seldom.Run(3, {});
  ASSERT_THAT(empty, IsOk());
  EXPECT_FALSE(empty->has_value()) << "a step without a batch has no gap";
}

}  // namespace
}  // namespace temper::learner
