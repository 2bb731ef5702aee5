// The worker's pure decisions: which version to fetch, what an answer means, how a lease stands.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rollout_worker/delivery_policy.h"
#include "rollout_worker/lease_table.h"
#include "rollout_worker/weights_policy.h"

namespace temper::rollout_worker {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(NextFetchTest, FetchesWhatIsNewerAndNothingElse) {
  const VersionKey held{.timeline = 2, .version = 5};
  EXPECT_EQ(NextFetch(0, std::nullopt, std::nullopt).reason, "no_timeline");
  EXPECT_EQ(NextFetch(2, std::nullopt, held).reason, "no_version_out");
  EXPECT_EQ(NextFetch(2, 5, held).reason, "up_to_date");
  EXPECT_EQ(NextFetch(2, 4, held).reason, "up_to_date") << "versions only move forward";
  EXPECT_EQ(NextFetch(2, 7, held).fetch, (VersionKey{2, 7}));
  EXPECT_EQ(NextFetch(2, 0, std::nullopt).fetch, (VersionKey{2, 0}));
}

TEST(NextFetchTest, FetchesFromANewTimelineWhateverItsNumber) {
  const VersionKey held{.timeline = 2, .version = 5};
  const FetchDecision decision = NextFetch(3, 4, held);
  EXPECT_EQ(decision.fetch, (VersionKey{3, 4}));
  EXPECT_EQ(decision.reason, "other_timeline");
}

TEST(AfterScoringTest, KeepsTryingWhileTheLeaseIsHeld) {
  const absl::Status down = absl::UnavailableError("down");
  EXPECT_EQ(AfterScoring(LeaseStanding::kHeld, down, 0, 0).move, NextMove::kRetry);
  EXPECT_EQ(AfterScoring(LeaseStanding::kHeld, absl::DeadlineExceededError("slow"), 0, 0).move,
            NextMove::kRetry);
  EXPECT_EQ(AfterScoring(LeaseStanding::kExpired, down, 0, 0).move, NextMove::kDrop);
  EXPECT_EQ(AfterScoring(LeaseStanding::kOtherTimeline, absl::OkStatus(), 0, 1).move,
            NextMove::kDrop);
  EXPECT_EQ(AfterScoring(LeaseStanding::kHeld, absl::OkStatus(), 0, 1).move, NextMove::kDone);
}

TEST(AfterScoringTest, FailsWhatNoServerWillEverScore) {
  const DeliveryDecision decision =
      AfterScoring(LeaseStanding::kHeld, absl::InvalidArgumentError("rule"), 0, 0);
  EXPECT_EQ(decision.move, NextMove::kFail);
  EXPECT_EQ(decision.ending, v1::ENDING_REWARD_FAILED);
}

TEST(AfterScoringTest, TriesSamplesWithoutAScoreABoundedNumberOfTimes) {
  EXPECT_EQ(AfterScoring(LeaseStanding::kHeld, absl::OkStatus(), 2, 1).move, NextMove::kRetry);
  EXPECT_EQ(AfterScoring(LeaseStanding::kHeld, absl::OkStatus(), 2, kMaxScorings).move,
            NextMove::kDone);
}

TEST(AfterSubmitTest, TakesAnAnswerEvenIfTheLeaseIsGone) {
  EXPECT_EQ(AfterSubmit(LeaseStanding::kExpired, absl::OkStatus()).move, NextMove::kDone);
  EXPECT_EQ(AfterSubmit(LeaseStanding::kExpired, absl::UnavailableError("")).move, NextMove::kDrop);
  EXPECT_EQ(AfterSubmit(LeaseStanding::kHeld, absl::UnavailableError("")).move, NextMove::kRetry);
  EXPECT_EQ(AfterSubmit(LeaseStanding::kHeld, absl::FailedPreconditionError("no timeline")).move,
            NextMove::kRetry);
  EXPECT_EQ(AfterSubmit(LeaseStanding::kHeld, absl::InvalidArgumentError("")).ending,
            v1::ENDING_GENERATION_FAILED);
}

TEST(DeliveryBackoffTest, DoublesUpToTwoSeconds) {
  EXPECT_EQ(DeliveryBackoff(1), absl::Milliseconds(100));
  EXPECT_EQ(DeliveryBackoff(2), absl::Milliseconds(200));
  EXPECT_EQ(DeliveryBackoff(1000), absl::Seconds(2));
}

v1::Lease TwoGroups() {
  v1::Lease lease;
  lease.set_lease_id(9);
  lease.set_timeline(1);
  lease.set_lease_seconds(10);
  for (uint64_t group : {3, 4}) {
    v1::GroupRef& ref = *lease.add_train()->mutable_ref();
    ref.set_timeline(1);
    ref.set_group_index(group);
    ref.set_attempt(1);
  }
  return lease;
}

const absl::Time kNow = absl::FromUnixSeconds(1000);

TEST(LeaseTableTest, AnsweredHeartbeatsRenewAndSilenceEndsALease) {
  LeaseTable table;
  table.Add(TwoGroups(), kNow);
  EXPECT_EQ(table.Check(9, {kNow + absl::Seconds(9), true, 1}), LeaseStanding::kHeld);
  EXPECT_EQ(table.Check(9, {kNow + absl::Seconds(18), false, 1}), LeaseStanding::kHeld);
  EXPECT_EQ(table.Check(9, {kNow + absl::Seconds(19), false, 1}), LeaseStanding::kExpired);
  EXPECT_EQ(table.Check(9, {kNow + absl::Seconds(19), true, 1}), LeaseStanding::kExpired)
      << "what was lost stays lost";
  EXPECT_THAT(table.Holding(), IsEmpty());
}

TEST(LeaseTableTest, ANewTimelineEndsEveryLeaseOfTheOldOne) {
  LeaseTable table;
  table.Add(TwoGroups(), kNow);
  EXPECT_EQ(table.Check(9, {kNow, true, 2}), LeaseStanding::kOtherTimeline);
  EXPECT_EQ(table.Check(9, {kNow, true, 1}), LeaseStanding::kOtherTimeline);
  EXPECT_EQ(table.Check(8, {kNow, true, 1}), LeaseStanding::kUnknown);
}

TEST(LeaseTableTest, PublishesWhatIsHeldAfterEveryChange) {
  std::vector<size_t> published;
  LeaseTable table([&](std::vector<v1::GroupRef> holding) { published.push_back(holding.size()); });
  const v1::Lease lease = TwoGroups();
  table.Add(lease, kNow);
  table.Release(9, lease.train(0).ref());
  EXPECT_THAT(table.Holding(), SizeIs(1));
  table.Close(9);
  EXPECT_THAT(published, ::testing::ElementsAre(2u, 1u, 0u));
}

}  // namespace
}  // namespace temper::rollout_worker
