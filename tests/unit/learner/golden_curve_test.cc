// Short runs with a fixed seed keep their curves: tests/golden/loss_curve.json was written by this
// test. A change of a formula, of a draw or of the order of steps moves a curve far beyond the
// tolerance; a change of rounding does not: another cut into micro-batches sums in another order,
// as another vector unit does, and has to stay within it too.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "learner/dapo_update.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/training_fixture.h"

namespace temper::learner {
namespace {

using ::nlohmann::json;
using ::nlohmann::ordered_json;
using ::temper::testing::IsOk;
using ::temper::testing::MadeUpBatch;
using ::temper::testing::PolicyForTest;
using ::temper::testing::TinyParameters;
using ::temper::testing::TrainerForTest;

constexpr int kSteps = 12;
// Relative to the number or to 0.01, whichever is larger. Another cut moves a curve by 7e-6.
constexpr double kTolerance = 1e-4;

PolicyTrainerOptions OptionsForTest() {
  return {.learning_rate = 2e-3,
          .max_grad_norm = 1.0,
          .warmup_steps = 3,
          .run_seed = 5,
          .noise = PolicyForTest(0.1, numerics::LearnerNoise::kSame)};
}

// Names and values of every step.
using Curve = std::vector<ordered_json>;

// DAPO under error, on new made-up groups each step.
Curve DapoCurve(int64_t micro_batch_tokens) {
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  DapoOptions options = {.minibatches_per_step = 2, .micro_batch_tokens = micro_batch_tokens};
  options.rules.old_logprob = OldLogprob::kRecomputed;
  options.rules.importance.mode = numerics::ImportanceMode::kToken;
  Curve curve;
  for (uint64_t step = 0; step < kSteps; ++step) {
    const auto result = RunDapoStep(MadeUpBatch(4 * step, 4, 4), options, trainer.get(), nullptr);
    EXPECT_THAT(result, IsOk());
    trainer->CloseStep(result->skipped());
    const auto tokens = static_cast<double>(result->objective.tokens);
    curve.push_back({{"loss", result->objective.loss},
                     {"entropy", result->entropy_sum / tokens},
                     {"grad_norm", result->grad_norm},
                     {"gap", result->gap.abs_mean()}});
  }
  return curve;
}

// Supervised training under error on one batch: - mean log-probability, which falls.
Curve SupervisedCurve(int64_t micro_batch_tokens) {
  auto trainer = TrainerForTest(TinyParameters(), OptionsForTest());
  const auto groups = MadeUpBatch(0, 4, 4);
  std::vector<TrainSequence> sequences;
  for (const RolloutGroup& group : groups) {
    for (TrainSequence& one : SequencesOf(group, {})) sequences.push_back(std::move(one));
  }
  int64_t tokens = 0;
  AggregationFactors(sequences, {}, &tokens);
  Curve curve;
  for (int step = 0; step < kSteps; ++step) {
    trainer->BeginOptimizerStep();
    double sum = 0.0;
    size_t begin = 0;
    for (const size_t end : CutMicroBatches(sequences, micro_batch_tokens)) {
      const auto pass =
          trainer->Forward(ModelInput(std::span(sequences).subspan(begin, end - begin)),
                           numerics::Phase::kTrain, 0, nullptr);
      EXPECT_THAT(pass, IsOk());
      const std::span<const float> logprobs = FloatsOf(pass->logprobs);
      for (const float logprob : logprobs) sum += logprob;
      const std::vector<float> weight(logprobs.size(), -1.0f / static_cast<float>(tokens));
      EXPECT_THAT(trainer->Backward(*pass, weight, nullptr), IsOk());
      begin = end;
    }
    const auto done = trainer->FinishOptimizerStep(nullptr);
    EXPECT_THAT(done, IsOk());
    curve.push_back({{"loss", -sum / static_cast<double>(tokens)}, {"grad_norm", done->grad_norm}});
  }
  return curve;
}

json Golden(const std::string& name) {
  std::ifstream file("tests/golden/loss_curve.json");
  return json::parse(file).value(name, json::array());
}

// The worst deviation is named; the whole curve is shown in the form of the golden file.
void ExpectNear(const Curve& curve, const json& golden) {
  ASSERT_EQ(golden.size(), curve.size()) << ordered_json(curve).dump();
  double worst = 0.0;
  std::string where;
  for (size_t step = 0; step < curve.size(); ++step) {
    for (const auto& [name, value] : curve[step].items()) {
      const double expected = golden[step].at(name).get<double>();
      const double off =
          std::fabs(value.get<double>() - expected) / std::max(0.01, std::fabs(expected));
      if (off <= worst) continue;
      worst = off;
      where = name + " of step " + std::to_string(step + 1);
    }
  }
  EXPECT_LE(worst, kTolerance) << where << "\n" << ordered_json(curve).dump();
}

TEST(GoldenCurveTest, DapoUnderErrorKeepsItsCurve) {
  for (const int64_t micro_batch_tokens : {0, 17}) {
    ExpectNear(DapoCurve(micro_batch_tokens), Golden("dapo"));
  }
}

TEST(GoldenCurveTest, SupervisedTrainingUnderErrorKeepsItsCurveAndItFalls) {
  for (const int64_t micro_batch_tokens : {0, 17}) {
    const Curve curve = SupervisedCurve(micro_batch_tokens);
    ExpectNear(curve, Golden("supervised"));
    EXPECT_LT(curve.back()["loss"].get<double>(), curve.front()["loss"].get<double>() - 0.5);
  }
}

}  // namespace
}  // namespace temper::learner
