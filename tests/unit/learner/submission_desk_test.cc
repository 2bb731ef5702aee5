#include "learner/submission_desk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "services/base/stop_token.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/builders.h"
#include "tests/unit/learner/fake_orchestrator.h"

namespace temper::learner {
namespace {

using ::temper::testing::AdmissionRulesForTest;
using ::temper::testing::FakeOrchestrator;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::SubmitWith;

class SubmissionDeskTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::SubmitGroupReply> Submit(const v1::SubmitGroupRequest& submit) {
    std::promise<absl::StatusOr<v1::SubmitGroupReply>> answered;
    desk_.Submit(submit, [&](const auto& answer) { answered.set_value(answer); });
    return answered.get_future().get();
  }

  metrics::MetricsRegistry registry_;
  LearnerMetrics metrics_{&registry_};
  GroupStore store_{{.groups_per_step = 2}};
  FakeOrchestrator orchestrator_;
  SubmissionDesk desk_{
      {.rules = AdmissionRulesForTest(2), .incarnation = 9, .settle_every = absl::Milliseconds(5)},
      &store_,
      &orchestrator_,
      &metrics_};
};

TEST_F(SubmissionDeskTest, RefusesUntilATimelineIsOpen) {
  EXPECT_THAT(Submit(SubmitWith(0, {1, 0})), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(SubmissionDeskTest, HoldsWhatTheOrchestratorAdmits) {
  store_.Open(3, 5);
  const auto answer = Submit(SubmitWith(0, {1, 0}));
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->verdict(), v1::SUBMIT_VERDICT_ADMITTED);
  EXPECT_EQ(store_.held(), 1u);
  ASSERT_EQ(orchestrator_.admissions().size(), 1u);
  EXPECT_EQ(orchestrator_.admissions()[0].learner_incarnation(), 9u);
}

TEST_F(SubmissionDeskTest, TheSameSubmitAgainGetsTheSameAnswerWithoutAsking) {
  store_.Open(3, 5);
  const auto first = Submit(SubmitWith(0, {1, 1}));
  const auto second = Submit(SubmitWith(0, {1, 1}));
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(first->verdict(), v1::SUBMIT_VERDICT_ZERO_VARIANCE);
  EXPECT_EQ(second->verdict(), first->verdict());
  EXPECT_EQ(orchestrator_.admissions().size(), 1u);
  EXPECT_EQ(store_.held(), 1u);
}

TEST_F(SubmissionDeskTest, ASecondAttemptOfAnAdmittedGroupIsSuperseded) {
  store_.Open(3, 5);
  ASSERT_THAT(Submit(SubmitWith(0, {1, 0})), IsOk());
  v1::SubmitGroupRequest second = SubmitWith(0, {1, 0});
  second.mutable_ref()->set_attempt(2);
  second.set_checksum(member::SubmissionChecksum(second));
  const auto answer = Submit(second);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->verdict(), v1::SUBMIT_VERDICT_SUPERSEDED);
  EXPECT_EQ(store_.held(), 1u);
}

TEST_F(SubmissionDeskTest, ADamagedSubmitIsRefusedAndReported) {
  store_.Open(3, 5);
  v1::SubmitGroupRequest damaged = SubmitWith(0, {1, 0});
  damaged.mutable_completions(0)->set_token_ids(0, 39);
  const auto answer = Submit(damaged);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->verdict(), v1::SUBMIT_VERDICT_REFUSED);
  EXPECT_EQ(orchestrator_.admissions()[0].examination(), v1::EXAMINATION_REFUSED);
  EXPECT_EQ(store_.held(), 0u);
}

TEST_F(SubmissionDeskTest, AnUnreachableOrchestratorMakesTheWorkerTryAgain) {
  store_.Open(3, 5);
  orchestrator_.admit_failures = 1;
  EXPECT_THAT(Submit(SubmitWith(0, {1, 0})), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Submit(SubmitWith(0, {1, 0})), IsOk());
  EXPECT_EQ(store_.held(), 1u);
}

TEST_F(SubmissionDeskTest, AnAdmissionWhoseAnswerWasLostIsAskedForAgainWithoutItsWorker) {
  store_.Open(3, 5);
  orchestrator_.admit_answers_lost = 2;
  EXPECT_THAT(Submit(SubmitWith(0, {1, 0})), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Submit(SubmitWith(1, {1, 0})), StatusIs(absl::StatusCode::kUnavailable));
  base::StopToken stop;
  const auto batch = store_.AwaitBatch(6, absl::Now() + absl::Seconds(20), &stop);
  ASSERT_THAT(batch, IsOk());
  EXPECT_EQ(batch->train.size(), 2u);
  // Whoever submits again gets the answer that was settled.
  const size_t asked = orchestrator_.admissions().size();
  EXPECT_EQ(Submit(SubmitWith(0, {1, 0}))->verdict(), v1::SUBMIT_VERDICT_ADMITTED);
  EXPECT_EQ(orchestrator_.admissions().size(), asked);
}

TEST_F(SubmissionDeskTest, AnswersWhatIsQueuedAtTheEndWithoutAskingTheOrchestrator) {
  store_.Open(3, 5);
  absl::Notification asked;
  absl::Notification closed;
  orchestrator_.on_admit = [&] {
    asked.Notify();
    closed.WaitForNotification();
  };
  std::vector<std::future<absl::StatusCode>> codes;
  for (uint64_t group = 0; group < 3; ++group) {
    auto answered = std::make_shared<std::promise<absl::StatusCode>>();
    codes.push_back(answered->get_future());
    desk_.Submit(SubmitWith(group, {1, 0}),
                 [answered](const auto& answer) { answered->set_value(answer.status().code()); });
  }
  asked.WaitForNotification();
  desk_.Close();
  closed.Notify();
  EXPECT_EQ(codes[0].get(), absl::StatusCode::kOk);
  EXPECT_EQ(codes[1].get(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(codes[2].get(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(orchestrator_.admissions().size(), 1u);
}

}  // namespace
}  // namespace temper::learner
