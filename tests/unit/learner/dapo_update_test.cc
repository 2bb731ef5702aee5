#include "learner/dapo_update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>

#include "learner/checkpoint.h"
#include "learner/policy_files.h"
#include "model/train_forward.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/learner/training_fixture.h"

namespace temper::learner {
namespace {

using ::nlohmann::json;
using ::temper::testing::AllWeights;
using ::temper::testing::IsOk;
using ::temper::testing::MadeUpBatch;
using ::temper::testing::PolicyForTest;
using ::temper::testing::StatusIs;
using ::temper::testing::TinyParameters;
using ::temper::testing::TrainerForTest;

PolicyTrainerOptions OptionsForTest() { return {.learning_rate = 1e-3, .max_grad_norm = 1.0}; }

// The samples of the golden file as groups; the masked sample becomes a truncated one.
std::vector<RolloutGroup> GoldenGroups(const json& golden) {
  std::vector<RolloutGroup> groups;
  for (const json& sample : golden["samples"]) {
    const uint64_t index = sample["group"].get<uint64_t>();
    if (groups.empty() || groups.back().group_index != index) {
      groups.push_back({.group_index = index,
                        .prompt_token_ids = sample["prompt_ids"].get<std::vector<int32_t>>()});
    }
    SampledCompletion completion;
    completion.token_ids = sample["completion_ids"].get<std::vector<int32_t>>();
    completion.rollout_logprobs = sample["rollout_logprobs"].get<std::vector<float>>();
    completion.truncated = sample["loss_mask"][0].get<int>() == 0;
    completion.score.reward = sample["reward"].get<double>();
    groups.back().completions.push_back(std::move(completion));
  }
  return groups;
}

class GoldenStepTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file("tests/golden/dapo_step.json");
    golden_ = json::parse(file);
    groups_ = GoldenGroups(golden_);
    rules_.mask_truncated = true;
  }

  // Gradients of L over the golden batch with these rules; fills the objective.
  void Differentiate(PolicyTrainer* trainer, std::vector<TrainSequence> sequences) {
    const auto factors = AggregationFactors(sequences, rules_, nullptr);
    std::vector<model::TrainGroup> input;
    for (const RolloutGroup& group : groups_) {
      model::TrainGroup one{.group_index = group.group_index, .prompt_ids = group.prompt_token_ids};
      for (uint32_t i = 0; i < group.completions.size(); ++i) {
        one.completions.push_back({.sample = i, .token_ids = group.completions[i].token_ids});
      }
      input.push_back(std::move(one));
    }
    trainer->BeginOptimizerStep();
    const auto pass = trainer->Forward(input, numerics::Phase::kTrain, 0, nullptr);
    ASSERT_THAT(pass, IsOk());
    const std::span<const float> logprobs = FloatsOf(pass->logprobs);
    std::vector<float> weight(logprobs.size());
    size_t offset = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const size_t tokens = sequences[i].completion.size();
      SequenceObjective(sequences[i], logprobs.subspan(offset, tokens), factors[i], rules_,
                        std::span<float>(weight).subspan(offset, tokens), &objective_);
      offset += tokens;
    }
    ASSERT_THAT(trainer->Backward(*pass, weight, nullptr), IsOk());
  }

  static void CompareGradients(const json& record, const model::Parameters& parameters) {
    for (const auto& [name, tensor] : parameters.named) {
      const std::span<const float> gradient = FloatsOf(tensor.grad());
      const json& expected = record["gradients"][name];
      double square = 0.0;
      for (const float g : gradient) square += static_cast<double>(g) * g;
      const double norm = expected["norm"].get<double>();
      EXPECT_NEAR(std::sqrt(square), norm, 1e-4 * std::max(1.0, norm)) << name;
      for (size_t i = 0; i < expected["indices"].size(); ++i) {
        EXPECT_NEAR(gradient[expected["indices"][i].get<size_t>()],
                    expected["values"][i].get<double>(), 1e-4)
            << name << " " << i;
      }
    }
  }

  std::vector<TrainSequence> Sequences() const {
    std::vector<TrainSequence> sequences;
    for (const RolloutGroup& group : groups_) {
      for (TrainSequence& sequence : SequencesOf(group, rules_)) sequences.push_back(sequence);
    }
    return sequences;
  }

  json golden_;
  std::vector<RolloutGroup> groups_;
  DapoRules rules_;
  ObjectiveStats objective_;
};

TEST_F(GoldenStepTest, LossGradientsAndAdamWEqualPyTorchsWithGivenOldLogprobs) {
  const json& record = golden_["old_logprob_given"];
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  rules_.old_logprob = OldLogprob::kRecomputed;
  std::vector<TrainSequence> sequences = Sequences();
  for (size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_NEAR(sequences[i].advantage, golden_["samples"][i]["advantage"].get<double>(), 1e-5);
    sequences[i].old_logprobs = golden_["samples"][i]["old_logprobs"].get<std::vector<float>>();
  }
  Differentiate(trainer.get(), sequences);
  EXPECT_NEAR(objective_.loss, record["loss"].get<double>(), 1e-5);
  CompareGradients(record, trainer->parameters());

  const auto step = trainer->FinishOptimizerStep(nullptr);
  ASSERT_THAT(step, IsOk());
  EXPECT_NEAR(step->grad_norm, record["grad_norm"].get<double>(), 1e-3);
  for (const auto& [name, tensor] : trainer->parameters().named) {
    const json& expected = record["adamw"]["parameters_after"][name];
    for (size_t i = 0; i < expected["indices"].size(); ++i) {
      EXPECT_NEAR(FloatsOf(tensor)[expected["indices"][i].get<size_t>()],
                  expected["values"][i].get<double>(), 2e-6)
          << name << " " << i;
    }
  }
}

TEST_F(GoldenStepTest, LossAndGradientsEqualPyTorchsWithCurrentOldLogprobs) {
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  Differentiate(trainer.get(), Sequences());
  EXPECT_NEAR(objective_.loss, golden_["old_logprob_current"]["loss"].get<double>(), 1e-5);
  CompareGradients(golden_["old_logprob_current"], trainer->parameters());
}

// Runs one step on a fresh trainer and returns all weights.
std::vector<float> WeightsAfter(const DapoOptions& options, const PolicyTrainerOptions& trainer,
                                const std::vector<RolloutGroup>& batch,
                                DapoStepResult* result = nullptr) {
  auto fresh = TrainerForTest(TinyParameters(), trainer);
  auto step = RunDapoStep(batch, options, fresh.get(), nullptr);
  EXPECT_THAT(step, IsOk());
  if (step.ok() && result != nullptr) *result = *std::move(step);
  return AllWeights(fresh->parameters());
}

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

TEST(DapoUpdateTest, TheMicroBatchSizeDoesNotChangeTheResult) {
  const auto batch = MadeUpBatch(0, 4, 4);
  for (const auto noise : {numerics::LearnerNoise::kSame, numerics::LearnerNoise::kFresh}) {
    PolicyTrainerOptions trainer = OptionsForTest();
    trainer.adamw.epsilon = 1e-3;  // so that a tiny gradient's sign does not decide its step
    trainer.noise = PolicyForTest(0.1, noise);
    DapoOptions options;
    options.micro_batch_tokens = 0;
    DapoStepResult whole;
    const auto at_once = WeightsAfter(options, trainer, batch, &whole);
    EXPECT_EQ(whole.optimizer_steps, 1);
    EXPECT_GT(LargestDifference(at_once, AllWeights(TinyParameters())), 1e-4);
    for (const int64_t tokens : {1, 17, 40}) {
      options.micro_batch_tokens = tokens;
      DapoStepResult cut;
      const auto in_parts = WeightsAfter(options, trainer, batch, &cut);
      EXPECT_LT(LargestDifference(at_once, in_parts), 1e-6) << tokens;
      EXPECT_NEAR(cut.grad_norm, whole.grad_norm, 1e-5 * whole.grad_norm) << tokens;
      EXPECT_NEAR(cut.objective.loss, whole.objective.loss, 1e-6) << tokens;
    }
  }
}

TEST(DapoUpdateTest, TheMicroBatchSizeDoesNotChangeTheResultUnderErrorsThatActOnAGroupsSum) {
  const auto batch = MadeUpBatch(0, 4, 4);
  for (const auto type :
       {numerics::ErrorType::kAbsoluteGaussian, numerics::ErrorType::kSaturation}) {
    PolicyTrainerOptions trainer = OptionsForTest();
    trainer.adamw.epsilon = 1e-3;
    numerics::NoiseSpec spec = {.enabled = true, .error_type = type};
    if (type == numerics::ErrorType::kSaturation) {
      spec.fault_magnitude = 0.3;
    } else {
      spec.error_scale = 1e-3;
    }
    trainer.noise = numerics::NoisePolicy::Create(spec, {.num_layers = 2}).value();
    DapoOptions options;
    options.micro_batch_tokens = 0;
    const auto at_once = WeightsAfter(options, trainer, batch);
    for (const int64_t tokens : {1, 17, 40}) {
      options.micro_batch_tokens = tokens;
      EXPECT_LT(LargestDifference(at_once, WeightsAfter(options, trainer, batch)), 1e-6) << tokens;
    }
  }
}

TEST(DapoUpdateTest, EqualInputsGiveEqualBits) {
  const auto batch = MadeUpBatch(3, 3, 4);
  PolicyTrainerOptions trainer = OptionsForTest();
  trainer.noise = PolicyForTest(0.1, numerics::LearnerNoise::kFresh);
  EXPECT_EQ(WeightsAfter({}, trainer, batch), WeightsAfter({}, trainer, batch));
}

TEST(DapoUpdateTest, RecomputedAndCurrentAgreeForOneOptimizerStep) {
  const auto batch = MadeUpBatch(0, 3, 4);
  PolicyTrainerOptions trainer = OptionsForTest();
  DapoOptions options;
  DapoStepResult current;
  const auto weights = WeightsAfter(options, trainer, batch, &current);
  options.rules.old_logprob = OldLogprob::kRecomputed;
  DapoStepResult recomputed;
  EXPECT_EQ(weights, WeightsAfter(options, trainer, batch, &recomputed));
  EXPECT_EQ(current.gap.tokens, recomputed.gap.tokens);
  EXPECT_DOUBLE_EQ(current.gap.abs_mean(), recomputed.gap.abs_mean());
}

TEST(DapoUpdateTest, SeveralMiniBatchesMakeSeveralOptimizerSteps) {
  DapoOptions options;
  options.minibatches_per_step = 2;
  options.rules.old_logprob = OldLogprob::kRecomputed;
  DapoStepResult result;
  WeightsAfter(options, OptionsForTest(), MadeUpBatch(0, 4, 4), &result);
  EXPECT_EQ(result.optimizer_steps, 2);
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  options.rules.old_logprob = OldLogprob::kCurrent;
  EXPECT_THAT(RunDapoStep(MadeUpBatch(0, 4, 4), options, trainer.get(), nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(DapoUpdateTest, AMiniBatchWithoutAnUnmaskedTokenIsLeftOut) {
  auto batch = MadeUpBatch(0, 1, 4);
  for (SampledCompletion& completion : batch[0].completions) completion.truncated = true;
  DapoOptions options;
  options.rules.mask_truncated = true;
  DapoStepResult result;
  EXPECT_EQ(WeightsAfter(options, OptionsForTest(), batch, &result), AllWeights(TinyParameters()));
  EXPECT_TRUE(result.skipped());
  EXPECT_EQ(result.empty_minibatches, 1);
}

TEST(DapoUpdateTest, AGradientThatIsNotFiniteLeavesTheWeightsAlone) {
  model::Parameters parameters = TinyParameters();
  // One weight so large that the loss overflows.
  for (auto& [name, tensor] : parameters.named) {
    if (name == "model.norm.weight") {
      tensor.data_ptr<float>()[0] = std::numeric_limits<float>::infinity();
    }
  }
  auto trainer = TrainerForTest(parameters, OptionsForTest());
  const std::vector<float> before = AllWeights(trainer->parameters());
  const auto step = RunDapoStep(MadeUpBatch(0, 2, 4), {}, trainer.get(), nullptr);
  ASSERT_THAT(step, IsOk());
  EXPECT_EQ(step->non_finite_gradients, 1);
  EXPECT_TRUE(step->skipped());
  EXPECT_EQ(AllWeights(trainer->parameters()), before);
  EXPECT_EQ(trainer->optimizer().updates(), 0);
}

TEST(DapoUpdateTest, ARaisedStopEndsTheUpdate) {
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  base::StopToken stop;
  stop.RequestStop();
  EXPECT_THAT(RunDapoStep(MadeUpBatch(0, 2, 4), {}, trainer.get(), &stop),
              StatusIs(absl::StatusCode::kCancelled));
}

TEST(DapoUpdateTest, TheErrorActsInEveryConfiguredRowAndNowhereElse) {
  PolicyTrainerOptions options = OptionsForTest();
  options.noise = PolicyForTest(0.1, numerics::LearnerNoise::kSame);
  DapoStepResult result;
  WeightsAfter({}, options, MadeUpBatch(0, 2, 4), &result);
  EXPECT_THAT(numerics::CheckSeen(options.noise, result.counters), IsOk());
  EXPECT_NEAR(result.counters.TotalForward().AchievedScale(), 0.1, 0.01);
  EXPECT_FALSE(numerics::CheckSeen(numerics::NoisePolicy(), result.counters).ok());
}

TEST(DapoUpdateTest, AResumedRunContinuesBitForBit) {
  testing::TempDir dir;
  LearnerOptions options;
  options.run_dir = dir.path();
  options.learning_rate = 1e-3;
  options.max_grad_norm = 1.0;
  options.warmup_steps = 5;
  options.seed = 3;
  options.noise = PolicyForTest(0.1, numerics::LearnerNoise::kFresh);
  options.config_fingerprint = 77;
  auto uninterrupted = *MakeTrainer(options, testing::kTinyModel, "", false, nullptr);
  const auto step = [](PolicyTrainer* trainer) {
    ASSERT_THAT(RunDapoStep(MadeUpBatch(10 * trainer->state().step, 3, 4), {}, trainer, nullptr),
                IsOk());
    trainer->CloseStep(false);
  };
  for (int i = 0; i < 2; ++i) step(uninterrupted.get());
  v1::CommitStepRequest commit;
  commit.set_step(2);
  ASSERT_THAT(WriteCheckpoint(dir.path(),
                              {.model = {.config = uninterrupted->parameters().config,
                                         .tensors = model::ViewsOf(uninterrupted->parameters())},
                               .moments = &uninterrupted->optimizer().moments(),
                               .state = uninterrupted->state(),
                               .config_fingerprint = 77,
                               .commit = commit}),
              IsOk());
  std::optional<v1::CommitStepRequest> last_commit;
  auto resumed =
      MakeTrainer(options, testing::kTinyModel, CheckpointPath(dir.path(), 2), false, &last_commit);
  ASSERT_THAT(resumed, IsOk());
  EXPECT_EQ(last_commit->step(), 2u);
  for (int i = 0; i < 2; ++i) {
    step(uninterrupted.get());
    step(resumed->get());
    EXPECT_EQ(AllWeights(uninterrupted->parameters()), AllWeights((*resumed)->parameters()));
  }
  EXPECT_EQ(uninterrupted->state().optimizer_steps, (*resumed)->state().optimizer_steps);
}

}  // namespace
}  // namespace temper::learner
