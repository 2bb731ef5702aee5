#include "rollout_worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "services/base/exit_code.h"
#include "services/member/submission_checksum.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rollout_worker/fake_run.h"
#include "tests/unit/rollout_worker/fake_sampler.h"
#include "tests/unit/rollout_worker/setup_for_test.h"
#include "weights/shared_memory_collective.h"

namespace temper::rollout_worker {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::SizeIs;
using Heard = FakeRun::Heard;

// One worker in a fake run; it works on a thread of its own until stopped.
class WorkerTest : public ::testing::Test {
 protected:
  void SetUp() override { Begin({}); }

  void Begin(const std::vector<std::string>& overrides) {
    setup_ = SetupForTest(overrides);
    run_ = std::make_unique<FakeRun>(*setup_);
  }

  void StartWorker() {
    thread_ = std::thread([this] {
      auto membership =
          member::MembershipClient::Create({.orchestrator_address = run_->orchestrator_address(),
                                            .role = v1::ROLE_ROLLOUT_WORKER,
                                            .member_id = "worker-1",
                                            .incarnation = 1,
                                            .stop = &stop_,
                                            .leave_signal = &stop_});
      ASSERT_THAT(membership, IsOk());
      RolloutWorker worker({.membership = membership->get(),
                            .setup = setup_.get(),
                            .sampler = &sampler_,
                            .registry = &registry_,
                            .back_end = std::make_shared<weights::SharedMemoryBackEnd>(),
                            .stop = &stop_,
                            .poll = absl::ZeroDuration()});
      end_ = worker.Run();
    });
  }

  // How the worker ended.
  absl::Status Join() {
    thread_.join();
    return end_;
  }
  absl::Status StopAndJoin() {
    stop_.RequestStop();
    return Join();
  }
  void TearDown() override {
    stop_.RequestStop();
    if (thread_.joinable()) thread_.join();
  }

  std::unique_ptr<RunSetup> setup_;
  std::unique_ptr<FakeRun> run_;
  FakeSampler sampler_;
  metrics::MetricsRegistry registry_;
  base::StopToken stop_;
  std::thread thread_;
  absl::Status end_;
};

TEST_F(WorkerTest, TakesALeaseThroughGenerationScoresAndSubmission) {
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 2));
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 2; }));
  const Heard heard = run_->heard();
  ASSERT_THAT(heard.submitted, SizeIs(2));
  const v1::SubmitGroupRequest& group = heard.submitted[1];
  EXPECT_EQ(group.ref().group_index(), 101u);
  EXPECT_EQ(group.worker(), "worker-1");
  EXPECT_EQ(group.checksum(), member::SubmissionChecksum(group));
  EXPECT_EQ(group.completions(1).versions(0).version(), 0u);
  EXPECT_EQ(group.completions(1).score().reward(), 1);
  EXPECT_THAT(heard.scored, SizeIs(1)) << "all completions of a lease in one call";
  EXPECT_EQ(heard.completed[0].ending(), v1::ENDING_UNSPECIFIED);
  EXPECT_EQ(heard.completed[0].tokens_generated(), 4u);
  ASSERT_FALSE(heard.acknowledged.empty());
  EXPECT_EQ(heard.acknowledged[0].aqn_norms(), 3u);
  EXPECT_TRUE(run_->Await([](const Heard& h) { return h.holding.empty(); }));
  run_->SetState(v1::RUN_STATE_FINISHED);
  EXPECT_THAT(Join(), IsOk()) << "the end of a run is an ordinary end";
  EXPECT_TRUE(run_->heard().left);
}

TEST_F(WorkerTest, AsksForWorkOnlyWithAVersionItHasAcknowledged) {
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return !heard.acquired.empty(); }));
  EXPECT_FALSE(run_->heard().acquired[0].has_version());
  run_->AddLease(FakeRun::Training(1, 1, 3, 1));
  run_->Publish(1, 3);
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 1; }));
  EXPECT_EQ(run_->heard().acknowledged.front().version(), 3u);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

TEST_F(WorkerTest, KeepsWhatItGeneratedWhileRewardServerAndLearnerAreDown) {
  run_->Publish(1, 0);
  run_->FailScoring(3);
  run_->FailSubmitting(2);
  run_->AddLease(FakeRun::Training(1, 1, 0, 1));
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 1; }));
  EXPECT_THAT(run_->heard().submitted, SizeIs(1));
  EXPECT_EQ(run_->heard().completed[0].ending(), v1::ENDING_UNSPECIFIED);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

TEST_F(WorkerTest, HeartbeatsNameWhatIsHeld) {
  run_->Publish(1, 0);
  run_->FailScoring(1'000'000);
  run_->AddLease(FakeRun::Training(1, 1, 0, 3));
  StartWorker();
  EXPECT_TRUE(run_->Await([](const Heard& heard) { return heard.holding.size() == 3; }));
  EXPECT_THAT(StopAndJoin(), IsOk());
  EXPECT_TRUE(run_->heard().left) << "leaving hands the leases back";
  EXPECT_THAT(run_->heard().submitted, SizeIs(0));
}

TEST_F(WorkerTest, CarriesOutAnEvaluation) {
  run_->Publish(1, 4);
  run_->AddLease(FakeRun::Evaluation(1, 1, 4));
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.reports.size() == 1; }));
  const v1::ReportEvalItemRequest report = run_->heard().reports[0];
  EXPECT_EQ(report.item_index(), 7u);
  EXPECT_EQ(report.member_id(), "worker-1");
  EXPECT_EQ(report.timeline(), 1u);
  ASSERT_EQ(report.outcomes_size(), 3);
  EXPECT_EQ(report.outcomes(2).question(), 42u);
  EXPECT_EQ(run_->heard().scored[0].overlong_cache_tokens(), 0u);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

TEST_F(WorkerTest, StopsAtTheNextDecodeStepAndHandsTheLeaseBack) {
  sampler_.NeverEnd();
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 2));
  StartWorker();
  ASSERT_TRUE(sampler_.AwaitRunning());
  const absl::Time stopped = absl::Now();
  EXPECT_THAT(StopAndJoin(), IsOk());
  EXPECT_LT(absl::Now() - stopped, absl::Seconds(5));
  EXPECT_EQ(sampler_.cancelled(), 1);
  EXPECT_TRUE(run_->heard().left);
  EXPECT_THAT(run_->heard().submitted, SizeIs(0));
}

TEST_F(WorkerTest, DropsALeaseOfAnOlderTimelineAndWorksInTheNewOne) {
  sampler_.NeverEnd();
  run_->Publish(1, 6);
  run_->AddLease(FakeRun::Training(1, 1, 6, 1));
  StartWorker();
  ASSERT_TRUE(sampler_.AwaitRunning());
  run_->Publish(2, 4);  // the learner was restarted from an older checkpoint
  ASSERT_TRUE(run_->Await([](const Heard& heard) {
    return heard.acknowledged.back().timeline() == 2 && heard.acknowledged.back().version() == 4;
  }));
  EXPECT_EQ(sampler_.cancelled(), 1);
  EXPECT_THAT(StopAndJoin(), IsOk());
  EXPECT_THAT(run_->heard().submitted, SizeIs(0));
  EXPECT_THAT(run_->heard().completed, SizeIs(0)) << "nobody waits for a rewound attempt";
}

TEST_F(WorkerTest, ReportsAGenerationThatFailedAndGoesOn) {
  sampler_.FailOnce(absl::DataLossError("a logit is not finite"));
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 1));
  run_->AddLease(FakeRun::Training(2, 1, 0, 1));
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 2; }));
  EXPECT_EQ(run_->heard().completed[0].ending(), v1::ENDING_GENERATION_FAILED);
  EXPECT_THAT(run_->heard().completed[0].detail(), ::testing::HasSubstr("not finite"));
  EXPECT_EQ(run_->heard().completed[1].ending(), v1::ENDING_UNSPECIFIED);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

TEST_F(WorkerTest, TakesAVersionInABroadcastGroupAndPullsWhatTheGroupDoesNotBring) {
  weights::SharedMemoryBackEnd back_end;
  const std::string id = *back_end.MakeId();
  auto root = *back_end.Join({.id = id, .rank = 0, .world_size = 2});
  run_->AnnounceGroup(1, id, /*world_size=*/2);
  const auto version = run_->Publish(1, 3, /*damage=*/false, /*comm_epoch=*/1);
  StartWorker();
  ASSERT_THAT(root->Form(absl::Now() + absl::Seconds(20)), IsOk());
  ASSERT_THAT(root->Send(version, absl::Now() + absl::Seconds(20)), IsOk());
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.acknowledged.size() == 1; }));
  root = nullptr;  // ends the group
  run_->Publish(1, 4, /*damage=*/false, /*comm_epoch=*/1);
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.acknowledged.size() == 2; }));
  EXPECT_EQ(run_->heard().acknowledged[1].version(), 4u);
  EXPECT_THAT(StopAndJoin(), IsOk());
  const std::string metrics = registry_.Serialize();
  EXPECT_THAT(metrics, ::testing::HasSubstr("received_total{way=\"broadcast\"} 1"));
  EXPECT_THAT(metrics, ::testing::HasSubstr("received_total{way=\"pull\"} 1"));
}

TEST_F(WorkerTest, EndsWithCorruptDataAfterThreeFailuresOfTheHash) {
  run_->Publish(1, 0, /*damage=*/true);
  StartWorker();
  const absl::Status end = Join();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(base::ExitCode(end), 4);
  EXPECT_TRUE(run_->heard().acknowledged.empty());
  EXPECT_TRUE(run_->heard().left);
}

TEST_F(WorkerTest, RefusesWeightsThatWerePublishedUnderAnotherNoise) {
  run_->ForeignNoise();
  run_->Publish(1, 0);
  StartWorker();
  const absl::Status end = Join();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("noise id")));
  EXPECT_EQ(base::ExitCode(end), 2);
}

TEST_F(WorkerTest, CountsTheLearnersVerdicts) {
  run_->Verdict(v1::SUBMIT_VERDICT_STALE);
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 2));
  StartWorker();
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 2; }));
  EXPECT_THAT(StopAndJoin(), IsOk());
  EXPECT_THAT(registry_.Serialize(),
              ::testing::HasSubstr("temper_rollout_groups_total{outcome=\"stale\"} 2"));
}

class AsyncWorkerTest : public WorkerTest {
 protected:
  void SetUp() override { Begin({"trainer.max_staleness=2"}); }
};

TEST_F(AsyncWorkerTest, TakesUpNewerWeightsBetweenDecodeStepsAndTokensRememberTheirVersion) {
  sampler_.NeverEnd();  // until a swap
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 1));
  StartWorker();
  ASSERT_TRUE(sampler_.AwaitRunning());
  run_->Publish(1, 1);
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 1; }));
  const v1::Completion completion = run_->heard().submitted[0].completions(0);
  ASSERT_EQ(completion.versions_size(), 2);
  EXPECT_EQ(completion.versions(0).version(), 0u);
  EXPECT_EQ(completion.versions(1).version(), 1u);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

TEST_F(AsyncWorkerTest, BeginsALeaseWithTheVersionItClaimedThoughANewerOneIsInstalledMeanwhile) {
  sampler_.BeginAfter(1);
  run_->Publish(1, 0);
  run_->AddLease(FakeRun::Training(1, 1, 0, 1));
  StartWorker();
  ASSERT_TRUE(sampler_.AwaitRunning());
  run_->Publish(1, 1);
  ASSERT_TRUE(run_->Await([](const Heard& heard) { return heard.completed.size() == 1; }));
  EXPECT_EQ(run_->heard().submitted[0].completions(0).versions(0).version(), 0u);
  EXPECT_THAT(StopAndJoin(), IsOk());
}

}  // namespace
}  // namespace temper::rollout_worker
