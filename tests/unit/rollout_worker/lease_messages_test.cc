#include "rollout_worker/lease_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "services/member/submission_checksum.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rollout_worker/setup_for_test.h"

namespace temper::rollout_worker {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

class LeaseMessagesTest : public ::testing::Test {
 protected:
  void SetUp() override { setup_ = SetupForTest({"seed=17"}); }

  v1::Lease Training(int groups) {
    v1::Lease lease;
    lease.set_lease_id(1);
    lease.set_timeline(2);
    lease.set_version(5);
    lease.set_lease_seconds(60);
    for (int i = 0; i < groups; ++i) {
      v1::TrainItem& item = *lease.add_train();
      item.mutable_ref()->set_run_id("run-1");
      item.mutable_ref()->set_timeline(2);
      item.mutable_ref()->set_group_index(static_cast<uint64_t>(10 + i));
      item.mutable_ref()->set_attempt(1);
      item.mutable_problem()->set_prompt("What is 2 plus 3?");
      item.mutable_problem()->set_truth("5");
      item.set_samples(3);
    }
    lease.mutable_aqn()->set_sigma(0.9);  // not what the engine sampled under
    return lease;
  }

  v1::Lease Evaluation() {
    v1::Lease lease;
    lease.set_lease_id(2);
    lease.set_timeline(2);
    lease.set_version(5);
    lease.set_lease_seconds(60);
    v1::EvalItem& item = *lease.mutable_eval();
    item.set_item_index(4);
    item.set_version(5);
    item.set_error_scale(0.05);
    item.set_noise_seed(77);
    item.set_first_question(100);
    item.set_max_completion_tokens(8);
    for (int i = 0; i < 2; ++i) item.add_problems()->set_prompt("What is 2 plus 3?");
    return lease;
  }

  // Every completion: two tokens by version 5.
  GeneratedLease Generated(const v1::Lease& lease) {
    PlannedBatch batch;
    EXPECT_THAT(PlanBatch(*setup_, lease, &batch), IsOk());
    GeneratedLease generated{.lease = lease};
    for (const model::PromptGroup& group : batch.request.groups) {
      generated.prompt_ids.push_back(group.prompt_ids);
      model::GeneratedGroup& out = generated.result.groups.emplace_back();
      for (uint32_t sample = 0; sample < group.samples; ++sample) {
        out.completions.push_back({.token_ids = {40, static_cast<int32_t>(41 + sample)},
                                   .logprobs = {-0.5F, -0.25F},
                                   .versions = {{.version = 5, .tokens = 2}}});
      }
      numerics::NoiseRow row{.operator_calls = 4};
      row.stats.elements = 9;
      out.aqn_sigma = lease.has_eval() ? 0.0 : 0.05;
      out.counters.Add({.phase = batch.request.phase, .layer = 1, .op = numerics::Operator::kUp},
                       row);
    }
    return generated;
  }

  v1::ScoreReply Scores(int count) {
    v1::ScoreReply reply;
    for (int i = 0; i < count; ++i) reply.add_scores()->set_reward(i);
    return reply;
  }

  std::unique_ptr<RunSetup> setup_;
};

TEST_F(LeaseMessagesTest, TrainingIsKeyedByTheRunAndTheGroupUnderItsOwnNoise) {
  PlannedBatch batch;
  ASSERT_THAT(PlanBatch(*setup_, Training(2), &batch), IsOk());
  EXPECT_EQ(batch.request.phase, numerics::Phase::kRollout);
  EXPECT_EQ(batch.request.seed, 17u);
  EXPECT_TRUE(batch.request.aqn);
  EXPECT_EQ(batch.request.policy, &setup_->policy);
  ASSERT_EQ(batch.request.groups.size(), 2u);
  EXPECT_EQ(batch.request.groups[1].scope, 11u);
  EXPECT_EQ(batch.request.groups[1].samples, 3u);
  EXPECT_FALSE(batch.request.stop_ids.empty());
}

TEST_F(LeaseMessagesTest, EvaluationIsKeyedByTheNoiseSeedAndTheQuestionAndFreeOfAqn) {
  PlannedBatch batch;
  ASSERT_THAT(PlanBatch(*setup_, Evaluation(), &batch), IsOk());
  EXPECT_EQ(batch.request.phase, numerics::Phase::kEval);
  EXPECT_EQ(batch.request.seed, 77u);
  EXPECT_FALSE(batch.request.aqn);
  EXPECT_EQ(batch.request.groups[1].scope, 101u);
  EXPECT_EQ(batch.request.groups[1].samples, 1u);
  EXPECT_EQ(batch.request.temperature, 0.0);
  EXPECT_EQ(batch.request.policy->Scale(numerics::Phase::kEval, numerics::Direction::kForward,
                                        numerics::Operator::kQ, 0),
            0.05);
  EXPECT_FALSE(batch.request.policy->Any(numerics::Phase::kRollout, numerics::Direction::kForward));
}

TEST_F(LeaseMessagesTest, RefusesLeasesThatCannotBeMeant) {
  EXPECT_THAT(CheckLease(*setup_, Training(2)), IsOk());
  EXPECT_THAT(CheckLease(*setup_, Evaluation()), IsOk());
  const std::vector<std::function<void(v1::Lease*)>> lies = {
      [](v1::Lease* l) { l->clear_train(); },
      [this](v1::Lease* l) { *l->mutable_eval() = Evaluation().eval(); },
      [](v1::Lease* l) { l->set_lease_seconds(0); },
      [](v1::Lease* l) { l->mutable_train(0)->mutable_ref()->set_run_id("other"); },
      [](v1::Lease* l) { l->mutable_train(0)->mutable_ref()->set_timeline(1); },
      [](v1::Lease* l) { l->mutable_train(0)->set_samples(0); },
      [](v1::Lease* l) { l->mutable_train(0)->set_samples(1u << 31); },
  };
  for (const auto& lie : lies) {
    v1::Lease lease = Training(2);
    lie(&lease);
    EXPECT_THAT(CheckLease(*setup_, lease), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  v1::Lease other_version = Evaluation();
  other_version.mutable_eval()->set_version(4);
  EXPECT_THAT(CheckLease(*setup_, other_version), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(LeaseMessagesTest, APromptThatIsTooLongNamesItsGroup) {
  v1::Lease lease = Training(2);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "seven ";
  lease.mutable_train(1)->mutable_problem()->set_prompt(text);
  PlannedBatch batch;
  EXPECT_THAT(PlanBatch(*setup_, lease, &batch),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group 11")));
}

TEST_F(LeaseMessagesTest, ASubmissionCarriesItsOwnScoresNoiseAndChecksum) {
  const GeneratedLease generated = Generated(Training(2));
  const v1::SubmitGroupRequest request =
      SubmissionFor(*setup_, generated, 1, Scores(6), "worker-1", absl::Seconds(1));
  EXPECT_EQ(request.ref().group_index(), 11u);
  EXPECT_EQ(request.seed(), 17u);
  EXPECT_EQ(request.noise_id(), setup_->noise_id);
  EXPECT_EQ(request.aqn_sigma(), 0.05);
  ASSERT_EQ(request.completions_size(), 3);
  EXPECT_EQ(request.completions(0).score().reward(), 3) << "the second group's first score";
  EXPECT_EQ(request.completions(2).token_ids(1), 43);
  EXPECT_EQ(request.completions(2).versions(0).version(), 5u);
  ASSERT_EQ(request.injections_size(), 1);
  EXPECT_EQ(request.injections(0).phase(), "rollout");
  EXPECT_EQ(request.injections(0).operator_(), "up");
  EXPECT_EQ(request.injections(0).calls(), 4u);
  EXPECT_EQ(request.injections(0).elements(), 9u);
  EXPECT_EQ(request.checksum(), member::SubmissionChecksum(request));
}

TEST_F(LeaseMessagesTest, ResultsThatAreNotWhatWasAskedForAreSeen) {
  const v1::Lease lease = Training(2);
  PlannedBatch batch;
  ASSERT_THAT(PlanBatch(*setup_, lease, &batch), IsOk());
  const model::GenerateResult good = Generated(lease).result;
  EXPECT_THAT(CheckResult(lease, batch.request, good, true), IsOk());
  model::GenerateResult other = good;
  other.groups[1].completions[0].versions[0].version = 6;
  EXPECT_THAT(CheckResult(lease, batch.request, other, true),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("group 11")));
  EXPECT_THAT(CheckResult(lease, batch.request, other, false), IsOk());
  model::GenerateResult missing = good;
  missing.groups[0].completions[2].logprobs.pop_back();
  EXPECT_THAT(CheckResult(lease, batch.request, missing, false),
              StatusIs(absl::StatusCode::kInternal));
  missing = good;
  missing.groups[0].completions.pop_back();
  EXPECT_THAT(CheckResult(lease, batch.request, missing, false),
              StatusIs(absl::StatusCode::kInternal));
}

TEST_F(LeaseMessagesTest, AnEvaluationReportHasOneOutcomeAQuestionAndAllItsInjections) {
  const GeneratedLease generated = Generated(Evaluation());
  v1::ScoreReply scores = Scores(2);
  scores.mutable_scores(1)->set_numeric(1);
  scores.mutable_scores(1)->set_extracted("5");
  const v1::ReportEvalItemRequest report = EvalReportFor(*setup_, generated, scores);
  EXPECT_EQ(report.item_index(), 4u);
  ASSERT_EQ(report.outcomes_size(), 2);
  EXPECT_EQ(report.outcomes(1).question(), 101u);
  EXPECT_EQ(report.outcomes(1).numeric(), 1);
  EXPECT_EQ(report.outcomes(1).extracted(), "5");
  EXPECT_EQ(report.outcomes(0).completion_tokens(), 2u);
  ASSERT_EQ(report.injections_size(), 1);
  EXPECT_EQ(report.injections(0).elements(), 18u);
}

TEST_F(LeaseMessagesTest, AnEvaluationUnderAnInjectionErrsByItAndNamesTheOperandsItCounted) {
  v1::Lease lease = Evaluation();
  PlannedBatch batch;
  ASSERT_THAT(PlanBatch(*setup_, lease, &batch), IsOk());
  EXPECT_FALSE(batch.evaluation_policy.injection().enabled());
  lease.mutable_eval()->set_injected(true);
  lease.mutable_eval()->set_error_scale(0.0);
  EXPECT_THAT(PlanBatch(*setup_, lease, &batch), StatusIs(absl::StatusCode::kInvalidArgument))
      << "the run has none";
  setup_->config.mutable_trainer()->mutable_hw_error_injection()->set_enabled(true);
  GeneratedLease generated = Generated(lease);
  EXPECT_THAT(CheckEvalNoise(*setup_, generated),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("weight_operand")));
  numerics::NoiseRow row{.operator_calls = 4};
  row.stats = {.calls = 4, .elements = 9, .changed = 9};
  generated.result.groups[0].counters.Add({.phase = numerics::Phase::kEval,
                                           .layer = 1,
                                           .op = numerics::Operator::kUp,
                                           .role = numerics::TensorRole::kWeightOperand},
                                          row);
  const v1::ReportEvalItemRequest report = EvalReportFor(*setup_, generated, Scores(2));
  ASSERT_EQ(report.injections_size(), 2);
  EXPECT_EQ(report.injections(0).tensor(), "");
  EXPECT_EQ(report.injections(1).tensor(), "weight_operand");
}

TEST_F(LeaseMessagesTest, AnEvaluationInWhichOneOperatorDidNotErrIsSeen) {
  v1::Lease lease = Evaluation();
  lease.mutable_eval()->set_error_scale(0.1);
  GeneratedLease generated = Generated(lease);
  numerics::NoiseCounters& counters = generated.result.groups[0].counters;
  numerics::NoiseRow erred{.operator_calls = 4};
  erred.stats = {.calls = 4, .elements = 9, .changed = 9};
  erred.stats.sum_sq_value.Add(1.0);
  const auto id = [&](int layer, numerics::Operator op) {
    return numerics::NoiseRowId{.phase = numerics::Phase::kEval, .layer = layer, .op = op};
  };
  for (int layer = 0; layer < setup_->shape.num_layers; ++layer) {
    for (const auto op : {numerics::Operator::kQ, numerics::Operator::kK, numerics::Operator::kV,
                          numerics::Operator::kO, numerics::Operator::kGate,
                          numerics::Operator::kUp, numerics::Operator::kDown}) {
      counters.Add(id(layer, op), erred);
    }
  }
  EXPECT_THAT(CheckEvalNoise(*setup_, generated), IsOk());
  GeneratedLease clean = generated;
  clean.lease.mutable_eval()->set_error_scale(0.0);
  EXPECT_THAT(CheckEvalNoise(*setup_, clean),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not configured")));
  numerics::NoiseCounters without;
  for (const auto& [row, counts] : counters.rows()) {
    if (row != id(0, numerics::Operator::kGate)) without.Add(row, counts);
  }
  counters = without;
  EXPECT_THAT(
      CheckEvalNoise(*setup_, generated),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("eval forward layers.0 gate")));
}

TEST_F(LeaseMessagesTest, AnEvaluationUnderAqnIsSeen) {
  GeneratedLease generated = Generated(Evaluation());
  numerics::NoiseRow norm{.operator_calls = 1};
  norm.stats = {.calls = 1, .elements = 16, .changed = 16};
  generated.result.groups[0].counters.Add({.phase = numerics::Phase::kEval,
                                           .layer = 0,
                                           .op = numerics::Operator::kInputNorm,
                                           .role = numerics::TensorRole::kWeightNoise},
                                          norm);
  EXPECT_THAT(CheckEvalNoise(*setup_, generated),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has no AQN")));
}

TEST_F(LeaseMessagesTest, ASetupIsMadeOfTheFilesThatCameAndNotOfThisHostsDisk) {
  v1::RunConfig config = setup_->config;
  config.mutable_model()->set_path("/nowhere/model");
  model::ModelFiles files = QuickstartFiles();
  const auto setup = MakeRunSetup("run-1", config, files);
  ASSERT_THAT(setup, IsOk());
  EXPECT_EQ((*setup)->model, setup_->model);
  EXPECT_EQ((*setup)->model_files_hash, setup_->model_files_hash);
  files.erase("tokenizer.json");
  EXPECT_THAT(MakeRunSetup("run-1", config, files),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tokenizer.json")));
}

}  // namespace
}  // namespace temper::rollout_worker
