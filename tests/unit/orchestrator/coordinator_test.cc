// A whole run against the coordinator, message by message, with a clock moved by hand.

#include "orchestrator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// All (group_index, problem) of a synchronous run with these workers.
std::vector<std::pair<uint64_t, uint64_t>> WholeRun(const std::vector<std::string>& workers) {
  TestRun run;
  for (const std::string& worker : workers) {
    EXPECT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, worker), IsOk());
  }
  run.BeginTraining();
  std::vector<std::pair<uint64_t, uint64_t>> sampled;
  for (uint64_t step = 1; step <= 3; ++step) {
    for (const std::string& worker : workers) run.Acknowledge(worker, step - 1);
    const std::vector<v1::TrainItem> items = run.SampleRound(workers);
    for (const v1::TrainItem& item : items) {
      sampled.emplace_back(item.ref().group_index(), item.problem().problem_id());
    }
    EXPECT_THAT(run.Commit(run.CommitRequest(step, TestRun::Refs(items))), IsOk());
    EXPECT_THAT(run.Publish(step), IsOk());
  }
  EXPECT_EQ(run->state(), v1::RUN_STATE_EVALUATING);
  run.Acknowledge("w1", 3);
  run.Evaluate("w1", true);
  auto due = run->SummaryDue();
  EXPECT_THAT(due, IsOk());
  EXPECT_TRUE(due->has_value());
  const auto text = SummaryJson(**due);
  EXPECT_THAT(text, IsOk());
  EXPECT_THAT(run->SummaryWritten(*text), IsOk());
  EXPECT_EQ(run->state(), v1::RUN_STATE_FINISHED);
  const auto summary = nlohmann::json::parse(*text);
  EXPECT_EQ(summary["state"], "finished");
  EXPECT_EQ(summary["error_type"], "absolute_gaussian");
  EXPECT_EQ(summary["groups"]["trained"], 12);
  EXPECT_EQ(summary["evaluations"].size(), 6u);  // two versions x (1 + 2 seeds)
  EXPECT_EQ(summary["paired"].size(), 2u);
  EXPECT_EQ(summary["paired"][0]["test"], "mcnemar_exact");
  EXPECT_EQ(summary["paired"][0]["only_after"], 5);
  EXPECT_EQ(summary["paired"][1]["test"], "paired_bootstrap_over_questions");
  EXPECT_EQ(summary["paired"][1]["difference"], 1.0);
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
  std::sort(sampled.begin(), sampled.end());
  return sampled;
}

TEST(Coordinator, ASynchronousRunIsTheSameWithOneWorkerAndWithThree) {
  const auto one = WholeRun({"w1"});
  ASSERT_THAT(one, SizeIs(12));
  EXPECT_EQ(one, WholeRun({"w1", "w2", "w3"}));
}

TEST(Coordinator, ARunWithAnInjectionIsEvaluatedUnderItToo) {
  v1::RunConfig config = SmallRun();
  config.mutable_trainer()->set_total_updates(0);
  config.mutable_trainer()->mutable_hw_error_injection()->set_enabled(true);
  TestRun run(config);
  ASSERT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w1"), IsOk());
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  ASSERT_THAT(run.Publish(0), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 0));
  // A report without what the item names, or with what it does not, is no report of it.
  v1::EvalItem item = run.Acquire("w1").lease().eval();
  EXPECT_FALSE(item.injected());
  item.set_injected(true);
  EXPECT_THAT(run.Report("w1", item, true).reason(), HasSubstr("without injection"));
  run.clock().Advance(absl::Seconds(2));
  run.Evaluate("w1", true);
  auto due = run->SummaryDue();
  ASSERT_THAT(due, IsOk());
  const auto text = SummaryJson(**due);
  ASSERT_THAT(text, IsOk());
  const auto summary = nlohmann::json::parse(*text);
  EXPECT_EQ(summary["injection"], "mxfp4 weight");
  ASSERT_EQ(summary["by_scale"].size(), 3u);
  EXPECT_EQ(summary["by_scale"][0]["injected"], false);
  EXPECT_EQ(summary["by_scale"][2]["injected"], true);
  EXPECT_EQ(summary["by_scale"][2]["error_scale"], 0.0);
  EXPECT_EQ(summary["by_scale"][2]["noise_seeds"], 1);
  EXPECT_EQ(summary["evaluations"].back()["injected_elements"], 14);
  EXPECT_EQ(summary["evaluations"].back()["perturbed_elements"], 0);
}

TEST(Coordinator, NothingIsLeasedBeforeAVersionIsOutOrWithoutARewardServer) {
  TestRun run;
  EXPECT_EQ(run.Acquire("w1").reason(), "no_timeline");
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  EXPECT_EQ(run.Acquire("w1").reason(), "no_version");
  ASSERT_THAT(run.Publish(0), IsOk());
  EXPECT_EQ(run.Acquire("w1").reason(), "stale_weights");
  ASSERT_TRUE(run.Acknowledge("w1", 0));
  run.clock().Advance(absl::Seconds(11));
  ASSERT_THAT(run.Beat("w1"), IsOk());
  EXPECT_EQ(run.Acquire("w1").reason(), "no_reward_server");
  ASSERT_THAT(run.Beat("reward"), IsOk());
  EXPECT_TRUE(run.Acquire("w1").lease().has_eval());
}

TEST(Coordinator, EvaluationHoldsTrainingAndVersionsStill) {
  TestRun run;
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  ASSERT_THAT(run.Publish(0), IsOk());
  ASSERT_THAT(run.Publish(0), IsOk());  // the same message again
  ASSERT_TRUE(run.Acknowledge("w1", 0));
  const v1::EvalItem item = run.Acquire("w1").lease().eval();
  EXPECT_EQ(item.problems_size(), 4);
  EXPECT_EQ(run->state(), v1::RUN_STATE_EVALUATING);
  EXPECT_TRUE(run.Report("w1", item, true).recorded());
  EXPECT_EQ(run.Report("w1", item, false).reason(), "another report came first");
  // A report in which the error was not seen is a failed attempt.
  v1::EvalItem noisy = item;
  for (v1::Lease lease = run.Acquire("w1").lease(); lease.has_eval();
       lease = run.Acquire("w1").lease()) {
    noisy = lease.eval();
    if (noisy.error_scale() > 0) break;
    run.Report("w1", noisy, true);
  }
  v1::EvalItem clean = noisy;
  clean.set_error_scale(0);
  EXPECT_THAT(run.Report("w1", clean, true).reason(), HasSubstr("0 perturbed elements"));
  // A step may be closed meanwhile, but its version waits.
  ASSERT_THAT(run.Commit(run.CommitRequest(1, {})), IsOk());
  EXPECT_THAT(run.Publish(1), StatusIs(absl::StatusCode::kUnavailable));
  run.clock().Advance(absl::Seconds(2));
  run.Evaluate("w1", true);
  EXPECT_THAT(run.Publish(1), IsOk());
}

TEST(Coordinator, AnsweringTwiceDoesNoHarm) {
  TestRun run;
  run.BeginTraining();
  EXPECT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w1"), IsOk());
  const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
  ASSERT_EQ(items.size(), 4u);
  EXPECT_TRUE(run.Admit(items[0].ref()).admitted());
  const v1::CommitStepRequest commit = run.CommitRequest(1, TestRun::Refs(items));
  bool already = true;
  ASSERT_THAT(run.Commit(commit, &already), IsOk());
  EXPECT_FALSE(already);
  ASSERT_THAT(run.Commit(commit, &already), IsOk());
  EXPECT_TRUE(already);
  const v1::AdmitGroupReply late = run.Admit(items[0].ref());
  EXPECT_TRUE(late.admitted());
  EXPECT_EQ(late.ending(), v1::ENDING_TRAINED);
  EXPECT_THAT(run.BeginAgain(0), IsOk());
  EXPECT_EQ(run.timeline_, 1u);  // the same incarnation, the same timeline
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, ASilentWorkerLosesItsLeasesAndTheGroupsAreLeasedAgain) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease first = run.Acquire("w1").lease();
  ASSERT_EQ(first.train_size(), 3);
  for (int i = 0; i < 9; ++i) {  // nine times ten seconds, renewed by heartbeats
    run.clock().Advance(absl::Seconds(10));
    for (const char* member : {"reward", "learner"}) ASSERT_THAT(run.Beat(member), IsOk());
    ASSERT_THAT(run.Beat("w1", first), IsOk());
    run->Tick();
  }
  EXPECT_TRUE(run.Admit(first.train(0).ref()).admitted());
  run.clock().Advance(absl::Seconds(10));
  for (const char* member : {"reward", "learner"}) ASSERT_THAT(run.Beat(member), IsOk());
  run.clock().Advance(absl::Seconds(1));
  run->Tick();
  EXPECT_THAT(run.Beat("w1"), StatusIs(absl::StatusCode::kNotFound));
  const v1::AdmitGroupReply late = run.Admit(first.train(1).ref());
  EXPECT_FALSE(late.admitted());
  EXPECT_EQ(late.ending(), v1::ENDING_LEASE_EXPIRED);

  ASSERT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w2"), IsOk());
  ASSERT_TRUE(run.Acknowledge("w2", 0));
  const v1::Lease rest = run.Acquire("w2").lease();  // the fourth group; the others back off
  ASSERT_EQ(rest.train_size(), 1);
  EXPECT_EQ(run.Acquire("w2").reason(), "backing_off");
  run.clock().Advance(absl::Seconds(2));
  const v1::Lease again = run.Acquire("w2").lease();
  ASSERT_EQ(again.train_size(), 2);
  EXPECT_EQ(again.train(0).ref().group_index(), first.train(1).ref().group_index());
  EXPECT_EQ(again.train(0).ref().attempt(), 2u);
  EXPECT_EQ(again.train(0).problem().problem_id(), first.train(1).problem().problem_id());
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, AGroupOutOfAttemptsFailsTheRunAndIsNamed) {
  TestRun run;
  run.BeginTraining();
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const v1::Lease lease = run.Acquire("w1").lease();
    ASSERT_GT(lease.train_size(), 0);
    v1::CompleteWorkRequest request;
    request.set_run_id("run");
    request.set_member_id("w1");
    request.set_incarnation(1);
    v1::CompletedAttempt* done = request.add_attempts();
    *done->mutable_ref() = lease.train(0).ref();
    done->set_ending(v1::ENDING_REWARD_FAILED);
    done->set_detail("no scores");
    v1::CompleteWorkReply reply;
    ASSERT_THAT(run->CompleteWork(request, &reply), IsOk());
    ASSERT_THAT(run->CompleteWork(request, &reply), IsOk());
    for (int i = 1; i < lease.train_size(); ++i) run.Admit(lease.train(i).ref());
    run.clock().Advance(absl::Seconds(5));
    ASSERT_THAT(run.Beat("w1"), IsOk());
    ASSERT_THAT(run.Beat("reward"), IsOk());
  }
  EXPECT_EQ(run->state(), v1::RUN_STATE_FAILED);
  v1::GetStatusReply status;
  ASSERT_THAT(run->GetStatus({}, &status), IsOk());
  EXPECT_THAT(status.state_reason(), HasSubstr("group 0: attempt 3 of 3 ended reward_failed"));
  EXPECT_EQ(run.Acquire("w1").reason(), "failed");
  EXPECT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w9"),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(Coordinator, TheFilterOpensTheDeficitAndThenClosesTheStep) {
  TestRun run;
  run.BeginTraining();
  v1::Lease lease = run.Acquire("w1").lease();
  const v1::Lease second = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size() + second.train_size(), 4);
  run.Admit(lease.train(0).ref(), v1::EXAMINATION_KEPT);
  run.Admit(lease.train(1).ref(), v1::EXAMINATION_ZERO_VARIANCE);
  run.Admit(lease.train(2).ref(), v1::EXAMINATION_ZERO_VARIANCE);
  EXPECT_EQ(run.Acquire("w1").reason(), "round_in_progress");
  v1::StepProgress progress =
      run.Admit(second.train(0).ref(), v1::EXAMINATION_ZERO_VARIANCE).progress();
  EXPECT_EQ(progress.reason(), "another_round");
  lease = run.Acquire("w1").lease();  // the deficit: three groups, indices 4, 5, 6
  ASSERT_EQ(lease.train_size(), 3);
  EXPECT_EQ(lease.train(0).ref().group_index(), 4u);
  run.Admit(lease.train(0).ref(), v1::EXAMINATION_ZERO_VARIANCE);
  run.Admit(lease.train(1).ref(), v1::EXAMINATION_ZERO_VARIANCE);
  // A refused submit is leased again and is not examined by the filter.
  EXPECT_EQ(run.Admit(lease.train(2).ref(), v1::EXAMINATION_REFUSED).ending(), v1::ENDING_REFUSED);
  run.clock().Advance(absl::Seconds(2));
  lease = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size(), 1);
  progress = run.Admit(lease.train(0).ref(), v1::EXAMINATION_ZERO_VARIANCE).progress();
  EXPECT_TRUE(progress.close_step());
  EXPECT_EQ(progress.kept(), 1u);
  EXPECT_EQ(progress.examined(), 7u);
  EXPECT_EQ(progress.round(), 2u);
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, ALearnerRestartRewindsStepsMetricsAndLateMessages) {
  TestRun run;
  run.BeginTraining();
  std::vector<std::vector<v1::TrainItem>> steps;
  for (uint64_t step = 1; step <= 2; ++step) {
    steps.push_back(run.SampleRound({"w1"}));
    ASSERT_THAT(run.Commit(run.CommitRequest(step, TestRun::Refs(steps.back()))), IsOk());
    ASSERT_THAT(run.Publish(step), IsOk());
    ASSERT_TRUE(run.Acknowledge("w1", step));
  }
  const v1::Lease open = run.Acquire("w1").lease();
  const v1::CommitStepRequest old_commit = run.CommitRequest(2, {});
  const std::string before = run.File("metrics.jsonl");
  EXPECT_THAT(before, HasSubstr("{\"step\":1,"));
  const std::string second = before.substr(before.find('\n') + 1);
  EXPECT_THAT(second, ::testing::StartsWith("{\"step\":2,"));

  ASSERT_THAT(run.BeginTimeline(1), IsOk());
  EXPECT_EQ(run.timeline_, 2u);
  EXPECT_EQ(run.File("metrics.jsonl") + second, before);
  EXPECT_EQ(run.File("rewound/metrics.timeline_2.jsonl"), second);
  const v1::AdmitGroupReply late = run.Admit(open.train(0).ref());
  EXPECT_FALSE(late.admitted());
  EXPECT_EQ(late.ending(), v1::ENDING_REWOUND);
  EXPECT_FALSE(run.Admit(steps[1][0].ref()).admitted());
  EXPECT_THAT(run.Commit(old_commit), StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(run.Acquire("w1").reason(), "no_version");

  ASSERT_THAT(run.Publish(1), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 1));
  const std::vector<v1::TrainItem> again = run.SampleRound({"w1"});
  ASSERT_EQ(again.size(), 4u);
  for (size_t i = 0; i < again.size(); ++i) {
    EXPECT_EQ(again[i].ref().group_index(), steps[1][i].ref().group_index());
    EXPECT_EQ(again[i].problem().problem_id(), steps[1][i].problem().problem_id());
  }
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, ACommitThatNeverArrivedComesWithTheNewTimeline) {
  TestRun run;
  run.BeginTraining();
  const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
  const v1::CommitStepRequest commit = run.CommitRequest(1, TestRun::Refs(items));
  ASSERT_THAT(run.BeginTimeline(1, &commit), IsOk());
  v1::GetStatusReply status;
  ASSERT_THAT(run->GetStatus({}, &status), IsOk());
  EXPECT_EQ(status.step(), 1u);
  EXPECT_EQ(status.attempts().at("trained"), 4u);
  EXPECT_EQ(status.metrics_json_size(), 1);
  // Once more, by yet another incarnation, after the commit is known.
  ASSERT_THAT(run.BeginTimeline(1, &commit), IsOk());
  EXPECT_EQ(run.timeline_, 3u);
  EXPECT_THAT(run.BeginTimeline(2), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(Coordinator, ARestartOfTheOrchestratorGoesOnWhereItWas) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size(), 3);
  EXPECT_TRUE(run.Admit(lease.train(0).ref()).admitted());
  run.Restart();
  ASSERT_THAT(run.Beat("w1", lease), IsOk());
  EXPECT_TRUE(run.Admit(lease.train(0).ref()).admitted());
  EXPECT_TRUE(run.Admit(lease.train(1).ref()).admitted());
  const v1::Lease rest = run.Acquire("w1").lease();
  ASSERT_EQ(rest.train_size(), 1);
  EXPECT_EQ(rest.train(0).ref().group_index(), 3u);
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING);
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, ANewIncarnationGivesUpWhatTheOldOneHeld) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w1", 2), IsOk());
  EXPECT_EQ(run.Admit(lease.train(0).ref()).ending(), v1::ENDING_DRAINED);
  EXPECT_THAT(run.Beat("w1"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w1", 1),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(Coordinator, WithoutAnyWorkerTheRunFailsAfterItsTimeout) {
  TestRun run;
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  ASSERT_THAT(run.Publish(0), IsOk());
  for (int i = 0; i < 25; ++i) {
    run.clock().Advance(absl::Seconds(5));
    for (const char* member : {"reward", "learner"}) ASSERT_THAT(run.Beat(member), IsOk());
    run->Tick();
  }
  EXPECT_EQ(run->state(), v1::RUN_STATE_FAILED);
}

TEST(Coordinator, AnAsynchronousRunLeasesAheadWithinItsCapacity) {
  v1::RunConfig config = SmallRun();
  config.mutable_trainer()->set_max_staleness(1);
  TestRun run(config);
  run.BeginTraining();
  std::vector<v1::GroupRef> refs;
  for (v1::AcquireWorkReply work = run.Acquire("w1");; work = run.Acquire("w1")) {
    if (!work.has_lease()) {
      EXPECT_EQ(work.reason(), "at_capacity");
      break;
    }
    for (const v1::TrainItem& item : work.lease().train()) refs.push_back(item.ref());
  }
  ASSERT_EQ(refs.size(), 8u);
  for (const v1::GroupRef& ref : refs) EXPECT_TRUE(run.Admit(ref).admitted());
  ASSERT_THAT(run.Commit(run.CommitRequest(1, {refs.begin(), refs.begin() + 4})), IsOk());
  // The surplus of four is carried over; new leases wait for version 1.
  ASSERT_THAT(run.Publish(1), IsOk());
  EXPECT_EQ(run.Acquire("w1").reason(), "stale_weights");
  ASSERT_TRUE(run.Acknowledge("w1", 1));
  EXPECT_EQ(run.Acquire("w1").lease().train_size(), 3);
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
}

TEST(Coordinator, MessagesOfAnotherRunOrLearnerAreRefused) {
  TestRun run;
  run.BeginTraining();
  v1::CommitStepRequest commit = run.CommitRequest(1, {});
  commit.set_run_id("another");
  EXPECT_THAT(run.Commit(commit), StatusIs(absl::StatusCode::kFailedPrecondition));
  commit = run.CommitRequest(1, {});
  commit.set_learner_incarnation(99);
  EXPECT_THAT(run.Commit(commit), StatusIs(absl::StatusCode::kFailedPrecondition));
  commit = run.CommitRequest(1, {});
  commit.set_metrics_json("{\"step\": 1");
  EXPECT_THAT(run.Commit(commit), StatusIs(absl::StatusCode::kInvalidArgument));
  commit = run.CommitRequest(2, {});
  EXPECT_THAT(run.Commit(commit), StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace temper::orchestrator
