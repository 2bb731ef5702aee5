// What the run remembers, and how long it waits: kills between two lines, damaged facts, hanging
// workers, and the count of every ending in a step's metrics.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "orchestrator/coordinator.h"
#include "orchestrator/retry_policy.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

// The "groups" of each line of metrics.jsonl.
std::vector<nlohmann::json> GroupsOfSteps(TestRun* run) {
  std::vector<nlohmann::json> groups;
  std::istringstream lines(run->File("metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    groups.push_back(nlohmann::json::parse(line)["groups"]);
  }
  return groups;
}

// All ten endings and the attempts leased, with these that are not 0.
nlohmann::json Groups(const std::map<std::string, int>& counts) {
  nlohmann::json groups = {{"attempts_leased", 0}};
  for (Ending ending : AllEndings()) groups[EndingName(ending)] = 0;
  for (const auto& [key, count] : counts) groups[key] = count;
  return groups;
}

void Complete(TestRun* run, const v1::GroupRef& ref, v1::Ending ending) {
  v1::CompleteWorkRequest request;
  request.set_run_id("run");
  request.set_member_id("w1");
  request.set_incarnation(1);
  *request.add_attempts()->mutable_ref() = ref;
  request.mutable_attempts(0)->set_ending(ending);
  v1::CompleteWorkReply reply;
  EXPECT_THAT((*run)->CompleteWork(request, &reply), IsOk());
}

void BeatAll(TestRun* run, const v1::Lease& holding = {}) {
  for (const char* member : {"reward", "learner"}) EXPECT_THAT(run->Beat(member), IsOk());
  EXPECT_THAT(run->Beat("w1", holding), IsOk());
}

TEST(Recovery, ItemsOfAVersionThatNeverCameOutDoNotHoldItBack) {
  TestRun run;
  run.BeginTraining();
  for (uint64_t step = 1; step <= 3; ++step) {
    ASSERT_THAT(run.Commit(run.CommitRequest(step, {})), IsOk());
    if (step < 3) {
      ASSERT_THAT(run.Publish(step), IsOk());
    }
  }
  // What a kill between items and manifest would leave, were they not one transaction.
  const auto before = run.store().EvalItems();
  ASSERT_THAT(before, IsOk());
  for (EvalItemRow item : *before) {
    item.item_index += before->size();
    item.spec.version = 3;
    item.state = EvalState::kPending;
    ASSERT_THAT(run.store().PutEvalItem(item), IsOk());
  }
  run.Restart();
  ASSERT_THAT(run.Publish(3), IsOk());
  EXPECT_EQ(run.store().EvalItems()->size(), 2 * before->size());
  ASSERT_TRUE(run.Acknowledge("w1", 3));
  run.Evaluate("w1", true);
  const auto due = run->SummaryDue();
  ASSERT_THAT(due, IsOk());
  EXPECT_TRUE(due->has_value());
}

TEST(Recovery, AStepsMetricsCountEveryEndingSinceTheStepBefore) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size(), 3);
  Complete(&run, lease.train(0).ref(), v1::ENDING_REWARD_FAILED);
  Complete(&run, lease.train(1).ref(), v1::ENDING_DRAINED);
  run.Admit(lease.train(2).ref(), v1::EXAMINATION_REFUSED);
  run.Restart();  // the counts are in the ledger
  run.clock().Advance(absl::Seconds(5));
  BeatAll(&run);
  const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
  ASSERT_EQ(items.size(), 4u);
  ASSERT_THAT(run.Commit(run.CommitRequest(1, TestRun::Refs(items))), IsOk());
  ASSERT_THAT(run.Publish(1), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 1));
  const std::vector<v1::TrainItem> quiet = run.SampleRound({"w1"});
  ASSERT_THAT(run.Commit(run.CommitRequest(2, TestRun::Refs(quiet))), IsOk());
  const std::vector<nlohmann::json> groups = GroupsOfSteps(&run);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0], Groups({{"attempts_leased", 7},
                               {"trained", 4},
                               {"refused", 1},
                               {"reward_failed", 1},
                               {"drained", 1}}));
  EXPECT_EQ(groups[1], Groups({{"attempts_leased", 4}, {"trained", 4}}));
}

TEST(Recovery, TheFirstStepOfATimelineCountsWhatItRewound) {
  TestRun run;
  run.BeginTraining();
  for (uint64_t step = 1; step <= 2; ++step) {
    const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
    ASSERT_THAT(run.Commit(run.CommitRequest(step, TestRun::Refs(items))), IsOk());
    ASSERT_THAT(run.Publish(step), IsOk());
    ASSERT_TRUE(run.Acknowledge("w1", step));
  }
  ASSERT_EQ(run.Acquire("w1").lease().train_size(), 3);
  ASSERT_THAT(run.BeginTimeline(1), IsOk());
  run.Restart();
  ASSERT_THAT(run.Publish(1), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 1));
  const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
  ASSERT_THAT(run.Commit(run.CommitRequest(2, TestRun::Refs(items))), IsOk());
  // Rewound: the four that step 2 had trained, and the three that were leased.
  EXPECT_EQ(GroupsOfSteps(&run).at(1),
            Groups({{"attempts_leased", 7}, {"trained", 4}, {"rewound", 7}}));
}

TEST(Recovery, ALeaseIsRenewedForItsDurationUntilItHasBeenHeldTooLong) {
  const absl::Time given = absl::FromUnixSeconds(1000);
  const absl::Duration lease = absl::Seconds(60);
  const absl::Time late = given + 19 * lease;
  EXPECT_EQ(RenewedUntil(given, given + absl::Seconds(5), lease), given + absl::Seconds(65));
  EXPECT_EQ(RenewedUntil(given, late + absl::Seconds(5), lease), given + 20 * lease);
  EXPECT_EQ(ExpiryReason(given, given + 2 * lease, lease), "the lease was not renewed");
  EXPECT_EQ(ExpiryReason(given, given + 20 * lease, lease), "held for 20m, 20 times the lease");
}

TEST(Recovery, AWorkerThatBeatsButNeverEndsItsGroupsLosesThem) {
  TestRun run;
  run.BeginTraining();
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_EQ(lease.train_size(), 3);
  for (int i = 0; i < 20 * 60 / 10; ++i) {  // 20 times the lease of 60 s
    EXPECT_EQ(run.store().OpenAttempts()->size(), 3u);
    run.clock().Advance(absl::Seconds(10));
    BeatAll(&run, lease);
    run->Tick();
  }
  EXPECT_EQ(run.store().OpenAttempts()->size(), 0u);
  EXPECT_EQ(run.Admit(lease.train(0).ref()).ending(), v1::ENDING_LEASE_EXPIRED);
  EXPECT_THAT(run.File("events.jsonl"), HasSubstr("held for 20m, 20 times the lease"));
}

TEST(Recovery, AWorkerThatHangsInAnEvaluationDoesNotHoldTheBarrierForEver) {
  TestRun run;
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  ASSERT_THAT(run.Publish(0), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 0));
  const v1::Lease lease = run.Acquire("w1").lease();
  ASSERT_TRUE(lease.has_eval());
  for (int i = 0; i < 20 * 60 / 10; ++i) {
    run.clock().Advance(absl::Seconds(10));
    BeatAll(&run);
    run->Tick();
  }
  ASSERT_THAT(run.Join(v1::ROLE_ROLLOUT_WORKER, "w2"), IsOk());
  ASSERT_TRUE(run.Acknowledge("w2", 0));
  run.clock().Advance(absl::Seconds(5));  // the back-off
  BeatAll(&run);
  const v1::Lease again = run.Acquire("w2").lease();
  ASSERT_TRUE(again.has_eval());
  EXPECT_EQ(again.eval().item_index(), lease.eval().item_index());
}

TEST(Recovery, WhatWasSampledAheadOfTheLastStepEndsWithTheRun) {
  v1::RunConfig config = SmallRun();
  config.mutable_trainer()->set_max_staleness(1);
  config.mutable_trainer()->set_total_updates(1);
  config.mutable_trainer()->mutable_dapo()->set_max_rounds(1);
  TestRun run(config);
  run.BeginTraining();
  v1::CommitStepRequest commit = run.CommitRequest(1, {});
  const v1::Lease dropped = run.Acquire("w1").lease();
  for (const v1::TrainItem& item : dropped.train()) {
    EXPECT_TRUE(run.Admit(item.ref(), v1::EXAMINATION_ZERO_VARIANCE).admitted());
    v1::ClosedAttempt* closed = commit.add_closed();
    closed->set_group_index(item.ref().group_index());
    closed->set_attempt(item.ref().attempt());
    closed->set_ending(v1::ENDING_DROPPED_ZERO_VARIANCE);
  }
  const v1::Lease ahead = run.Acquire("w1").lease();  // in place of those that were dropped
  ASSERT_EQ(ahead.train_size(), 3);
  ASSERT_TRUE(run.Admit(ahead.train(0).ref()).progress().close_step()) << "the bound of the filter";
  ASSERT_TRUE(run.Admit(ahead.train(1).ref()).admitted()) << "the learner has its batch by now";
  v1::ClosedAttempt* trained = commit.add_closed();
  trained->set_group_index(ahead.train(0).ref().group_index());
  trained->set_attempt(1);
  trained->set_ending(v1::ENDING_TRAINED);
  ASSERT_THAT(run.Commit(commit), IsOk());
  ASSERT_THAT(run.Publish(1), IsOk());
  ASSERT_TRUE(run.Acknowledge("w1", 1));
  run.Evaluate("w1", true);

  EXPECT_EQ(run.store().OpenAttempts()->size(), 2u) << "one admitted, one leased";
  const auto summary = run->SummaryDue();
  ASSERT_TRUE(summary.ok() && summary->has_value());
  EXPECT_EQ((*summary)->accounting.Ended(Ending::kDrained), 2u);
  EXPECT_EQ(run.store().OpenAttempts()->size(), 0u);
  EXPECT_THAT(run->VerifyAccounting(), IsOk());
  EXPECT_EQ(run.Admit(ahead.train(2).ref()).ending(), v1::ENDING_DRAINED) << "said late";
}

TEST(Recovery, WhoIsStillThereIsWaitedForOnceTheRunIsOver) {
  TestRun run;
  run.BeginTraining();
  EXPECT_TRUE(run->NobodyWaits()) << "members wait for the next orchestrator of a run that goes on";
  v1::StopRunRequest stop;
  stop.set_run_id("run");
  v1::StopRunReply stopped;
  ASSERT_THAT(run->StopRun(stop, &stopped), IsOk());
  for (const char* member : {"reward", "learner", "w1"}) {
    EXPECT_FALSE(run->NobodyWaits());
    v1::LeaveRequest leave;
    leave.set_run_id("run");
    leave.set_member_id(member);
    leave.set_incarnation(1);
    v1::LeaveReply reply;
    ASSERT_THAT(run->Leave(leave, &reply), IsOk());
  }
  EXPECT_TRUE(run->NobodyWaits());
}

TEST(Recovery, ADamagedNumberInTheLedgerIsCorruptDataAndNotTheEndOfTheProcess) {
  TestRun run;
  ASSERT_THAT(run.store().PutFact("desired_rollout_worker", "many"), IsOk());
  EXPECT_THAT(run.OpenCoordinator().status(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("'many'")));
}

v1::HeartbeatReply BeatOf(TestRun* run, const std::string& member) {
  v1::HeartbeatRequest request;
  request.set_run_id("run");
  request.set_member_id(member);
  request.set_incarnation(1);
  v1::HeartbeatReply reply;
  EXPECT_THAT((*run)->Heartbeat(request, &reply), IsOk());
  return reply;
}

void Stop(TestRun* run, bool failed) {
  v1::StopRunRequest request;
  request.set_run_id("run");
  request.set_reason("noise was not seen");
  request.set_failed(failed);
  v1::StopRunReply reply;
  ASSERT_THAT((*run)->StopRun(request, &reply), IsOk());
}

TEST(Recovery, AFailedRunStaysFailedWhenTheOrchestratorIsRestarted) {
  TestRun run;
  run.BeginTraining();
  Stop(&run, /*failed=*/true);
  run.Restart();
  EXPECT_EQ(run->state(), v1::RUN_STATE_FAILED);
  const v1::HeartbeatReply told = BeatOf(&run, "w1");
  EXPECT_EQ(told.state(), v1::RUN_STATE_FAILED);
  EXPECT_EQ(told.state_reason(), "noise was not seen");
  EXPECT_TRUE(told.drain());
  EXPECT_FALSE(run.Acquire("w1").has_lease());
  EXPECT_THAT(run.Join(v1::ROLE_LEARNER, "learner", 9),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("noise was not seen")));
  v1::GetStatusReply status;
  ASSERT_THAT(run->GetStatus({}, &status), IsOk());
  EXPECT_EQ(status.state_reason(), "noise was not seen");
  const auto due = run->SummaryDue();  // and its summary is written, again or for the first time
  ASSERT_THAT(due, IsOk());
  ASSERT_TRUE(due->has_value());
  EXPECT_EQ((*due)->state, "failed");
}

TEST(Recovery, AStoppedRunGoesOnForAPersonAndNotForTheSupervisor) {
  TestRun run;
  run.BeginTraining();
  Stop(&run, /*failed=*/false);
  run.Restart();
  EXPECT_EQ(run->state(), v1::RUN_STATE_STOPPED);
  run.Restart(/*go_on=*/true);
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING);
  run.Restart();
  EXPECT_EQ(run->state(), v1::RUN_STATE_TRAINING) << "its end is forgotten";
}

TEST(Recovery, AFinishedRunStaysFinishedForBothAndItsProcessEnds) {
  TestRun run;
  run.BeginTraining();
  for (uint64_t step = 1; step <= 3; ++step) {
    ASSERT_THAT(run.Commit(run.CommitRequest(step, {})), IsOk());
    ASSERT_THAT(run.Publish(step), IsOk());
    ASSERT_TRUE(run.Acknowledge("w1", step));
  }
  run.Evaluate("w1", true);
  ASSERT_THAT(run->SummaryWritten("{}"), IsOk());
  for (const bool go_on : {false, true}) {
    run.Restart(go_on);
    EXPECT_EQ(run->state(), v1::RUN_STATE_FINISHED);
    EXPECT_FALSE(run->MayExit()) << "members are there";
  }
  run.clock().Advance(absl::Seconds(11));
  run->Tick();  // they fall silent
  EXPECT_TRUE(run->MayExit()) << "nobody asks how it ended";
}

TEST(Recovery, RewoundMetricsAreWrittenEvenIfTheProcessWasKilledBefore) {
  TestRun run;
  run.BeginTraining();
  const std::vector<v1::TrainItem> items = run.SampleRound({"w1"});
  ASSERT_THAT(run.Commit(run.CommitRequest(1, TestRun::Refs(items))), IsOk());
  ASSERT_THAT(run.BeginTimeline(0), IsOk());
  const std::string written = run.File("rewound/metrics.timeline_2.jsonl");
  EXPECT_THAT(written, HasSubstr("{\"step\":1,"));
  std::filesystem::remove(run.Path("rewound/metrics.timeline_2.jsonl"));
  run.Restart();
  EXPECT_EQ(run.File("rewound/metrics.timeline_2.jsonl"), written);
}

TEST(RunPlan, FrozenErrorIsEvaluatedUnderOneSeedUnlessSamplingDraws) {
  v1::RunConfig config = SmallRun();
  EXPECT_EQ(MakeRunPlan(config)->eval.noise_seeds, 2u);
  config.mutable_trainer()->mutable_noisy_ops()->set_noise_key("frozen");
  EXPECT_EQ(MakeRunPlan(config)->eval.noise_seeds, 1u);
  config.mutable_eval()->set_temperature(1);
  EXPECT_EQ(MakeRunPlan(config)->eval.noise_seeds, 2u);
}

TEST(RunPlan, ErrorThatDrawsNothingIsEvaluatedOnce) {
  v1::RunConfig config = SmallRun();
  v1::NoisyOpsConfig* noisy = config.mutable_trainer()->mutable_noisy_ops();
  noisy->set_error_type("truncation");
  EXPECT_EQ(MakeRunPlan(config)->eval.noise_seeds, 1u);
  noisy->set_error_type("absolute_gaussian");
  EXPECT_EQ(MakeRunPlan(config)->eval.noise_seeds, 2u);
}

}  // namespace
}  // namespace temper::orchestrator
