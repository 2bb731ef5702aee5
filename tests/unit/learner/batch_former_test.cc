#include "learner/batch_former.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "learner/group_store.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/builders.h"

namespace temper::learner {
namespace {

using ::temper::testing::GroupWith;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr BatchRules kSynchronous = {.groups_per_step = 2, .max_staleness = 0};
constexpr BatchRules kAsynchronous = {.groups_per_step = 2, .max_staleness = 1};

TEST(BatchFormerTest, WaitsUntilEnoughGroupsAreHeld) {
  const BatchDecision decision = DecideBatch(
      {{.group_index = 0}, {.group_index = 1, .zero_variance = true}}, 1, {}, kSynchronous);
  EXPECT_EQ(decision.action, BatchAction::kWait);
  EXPECT_EQ(decision.reason, "holds 1 of 2 groups");
}

TEST(BatchFormerTest, TakesGroupsInOrderOfIndexWhateverTheirArrival) {
  const BatchDecision decision = DecideBatch(
      {{.group_index = 9}, {.group_index = 4, .zero_variance = true}, {.group_index = 7}}, 1, {},
      kSynchronous);
  EXPECT_EQ(decision.action, BatchAction::kTrain);
  EXPECT_THAT(decision.train, ElementsAre(2, 0));
  EXPECT_THAT(decision.zero_variance, ElementsAre(1));
}

TEST(BatchFormerTest, ClosesWithWhatIsHeldAtTheFiltersBound) {
  const BatchDecision decision = DecideBatch(
      {{.group_index = 9}}, 1, {.step = 1, .close_step = true, .reason = "3 rounds"}, kSynchronous);
  EXPECT_EQ(decision.action, BatchAction::kTrain);
  EXPECT_EQ(decision.reason, "closed with 1 of 2 groups: 3 rounds");
}

TEST(BatchFormerTest, SkipsAStepInWhichNothingWasKept) {
  const BatchDecision decision =
      DecideBatch({{.group_index = 9, .zero_variance = true}}, 4,
                  {.step = 4, .close_step = true, .reason = "3 rounds"}, kSynchronous);
  EXPECT_EQ(decision.action, BatchAction::kSkip);
  EXPECT_THAT(decision.zero_variance, ElementsAre(0));
}

TEST(BatchFormerTest, IgnoresTheBoundOfAnotherStep) {
  EXPECT_EQ(DecideBatch({}, 5, {.step = 4, .close_step = true}, kSynchronous).action,
            BatchAction::kWait);
}

TEST(BatchFormerTest, DropsGroupsThatAgedSinceTheyWereAdmitted) {
  const BatchDecision decision = DecideBatch({{.group_index = 0, .oldest_version = 2},
                                              {.group_index = 1, .oldest_version = 4},
                                              {.group_index = 2, .oldest_version = 5}},
                                             6, {}, kAsynchronous);
  EXPECT_THAT(decision.train, ElementsAre(1, 2));
  EXPECT_THAT(decision.stale, ElementsAre(0));
}

TEST(BatchFormerTest, CarriesSurplusOverUnlessItWillBeTooOld) {
  const BatchDecision decision = DecideBatch({{.group_index = 0, .oldest_version = 5},
                                              {.group_index = 1, .oldest_version = 5},
                                              {.group_index = 2, .oldest_version = 5},
                                              {.group_index = 3, .oldest_version = 4}},
                                             6, {}, kAsynchronous);
  EXPECT_THAT(decision.train, ElementsAre(0, 1));
  EXPECT_THAT(decision.stale, ElementsAre(3));  // group 2 stays held
}

TEST(GroupStoreTest, HandsOutACompleteBatchAndKeepsTheSurplus) {
  GroupStore store(kAsynchronous);
  store.Open(3, 5);
  for (const uint64_t index : {8, 6, 7}) store.Hold(GroupWith(index, {1, 0}, 5));
  store.Hold(GroupWith(6, {0, 1}, 5));  // a second of the same group is passed over
  base::StopToken stop;
  const auto batch = store.AwaitBatch(6, absl::InfinitePast(), &stop);
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ(batch->train.size(), 2u);
  EXPECT_EQ(batch->train[0].group_index, 6u);
  EXPECT_EQ(batch->train[1].group_index, 7u);
  EXPECT_EQ(store.held(), 1u);
}

TEST(GroupStoreTest, JudgesWhatArrivesDuringAnUpdateByTheVersionThatIsBeingMade) {
  GroupStore store(kAsynchronous);
  store.Open(3, 5);
  for (const uint64_t index : {6, 7}) store.Hold(GroupWith(index, {1, 0}, 5));
  base::StopToken stop;
  ASSERT_TRUE(store.AwaitBatch(6, absl::InfinitePast(), &stop).ok());
  EXPECT_EQ(store.BeginExamination()->policy_version, 6u);
}

TEST(GroupStoreTest, AGroupThatWasExaminedBeforeTheUpdateAndHeldInItDoesNotStayForEver) {
  GroupStore store(kAsynchronous);
  store.Open(3, 5);
  for (const uint64_t index : {6, 7}) store.Hold(GroupWith(index, {1, 0}, 5));
  ASSERT_EQ(store.BeginExamination()->policy_version, 5u);  // a group of version 4 may be trained
  base::StopToken stop;
  ASSERT_TRUE(store.AwaitBatch(6, absl::InfinitePast(), &stop).ok());
  EXPECT_THAT(store.TakeStale(6, absl::InfinitePast()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  store.Hold(GroupWith(8, {1, 0}, 4));
  store.Hold(GroupWith(9, {1, 0}, 5));
  store.EndExamination();
  const auto stale = store.TakeStale(6, absl::InfinitePast());
  ASSERT_TRUE(stale.ok());
  ASSERT_EQ(stale->size(), 1u);
  EXPECT_EQ(stale->front().group_index, 8u);
  EXPECT_EQ(store.held(), 1u);
}

TEST(GroupStoreTest, SaysHowFarTheStepIsAtTheDeadline) {
  GroupStore store(kSynchronous);
  base::StopToken stop;
  EXPECT_THAT(store.AwaitBatch(1, absl::InfinitePast(), &stop),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "holds 0 of 2 groups"));
}

TEST(GroupStoreTest, AStopEndsTheWait) {
  GroupStore store(kSynchronous);
  base::StopToken stop;
  std::thread stopper([&] { stop.RequestStop(); });
  EXPECT_THAT(store.AwaitBatch(1, absl::InfiniteFuture(), &stop),
              StatusIs(absl::StatusCode::kCancelled));
  stopper.join();
}

TEST(GroupStoreTest, ABoundThatArrivesEndsTheWait) {
  GroupStore store(kSynchronous);
  store.Hold(GroupWith(0, {1, 1}));
  base::StopToken stop;
  std::thread teller([&] {
    v1::StepProgress progress;
    progress.set_step(1);
    progress.set_close_step(true);
    store.NoteProgress(progress);
  });
  const auto batch = store.AwaitBatch(1, absl::InfiniteFuture(), &stop);
  teller.join();
  ASSERT_TRUE(batch.ok());
  EXPECT_THAT(batch->train, IsEmpty());
  EXPECT_EQ(batch->zero_variance.size(), 1u);
}

TEST(GroupStoreTest, RemembersTheNewestAnswers) {
  GroupStore store(kSynchronous);
  v1::SubmitGroupReply answer;
  answer.set_verdict(v1::SUBMIT_VERDICT_ADMITTED);
  for (uint64_t i = 0; i <= GroupStore::kRememberedAnswers; ++i) store.Remember(i, 1, answer);
  EXPECT_FALSE(store.Remembered(0, 1).has_value());
  EXPECT_TRUE(store.Remembered(1, 1).has_value());
  EXPECT_FALSE(store.Remembered(1, 2).has_value());
}

}  // namespace
}  // namespace temper::learner
