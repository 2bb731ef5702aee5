// A worker's seat against a real root over shared memory, met through a real control plane.

#include "rollout_worker/broadcast_seat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/status_matchers.h"
#include "tests/unit/rollout_worker/fake_run.h"
#include "tests/unit/rollout_worker/setup_for_test.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/shared_memory_collective.h"

namespace temper::rollout_worker {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

class BroadcastSeatTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run_ = std::make_unique<FakeRun>(*SetupForTest());
    run_->Publish(1, 0);
    auto membership =
        member::MembershipClient::Create({.orchestrator_address = run_->orchestrator_address(),
                                          .role = v1::ROLE_ROLLOUT_WORKER,
                                          .member_id = "worker-1",
                                          .incarnation = 1});
    ASSERT_THAT(membership, IsOk());
    membership_ = *std::move(membership);
    peers_ = std::make_unique<PeerClient>(PeerClientOptions{.orchestrator = membership_->channel(),
                                                            .run_id = membership_->run_id(),
                                                            .member_id = "worker-1",
                                                            .incarnation = 1});
    seat_ = std::make_unique<BroadcastSeat>(
        BroadcastSeatOptions{.back_end = std::make_shared<weights::SharedMemoryBackEnd>(),
                             .membership = membership_.get(),
                             .peers = peers_.get()});
  }

  // The learner's side of a group of one worker.
  std::unique_ptr<weights::Collective> Announce(uint64_t comm_epoch) {
    const std::string id = *back_end_.MakeId();
    auto root = *back_end_.Join({.id = id, .rank = 0, .world_size = 2});
    run_->AnnounceGroup(comm_epoch, id, /*world_size=*/2);
    return root;
  }
  static std::shared_ptr<const weights::WeightVersion> Version(uint64_t number,
                                                               uint64_t comm_epoch) {
    return weights::MakeTestVersion({.version = number, .comm_epoch = comm_epoch});
  }
  absl::Status Receive(uint64_t number, uint64_t comm_epoch, absl::Time deadline) {
    auto assembler = *weights::VersionAssembler::Create(Version(number, comm_epoch)->manifest());
    absl::Status status = seat_->Receive(assembler.get(), deadline);
    if (status.ok()) status = assembler->Finish().status();
    return status;
  }

  weights::SharedMemoryBackEnd back_end_;
  std::unique_ptr<FakeRun> run_;
  std::unique_ptr<member::MembershipClient> membership_;
  std::unique_ptr<PeerClient> peers_;
  std::unique_ptr<BroadcastSeat> seat_;  // ends first
};

TEST_F(BroadcastSeatTest, ReceivesOneVersionAfterAnotherInTheGroupThatTheManifestsName) {
  const auto root = Announce(1);
  std::thread learner([&] {
    ASSERT_THAT(root->Form(Soon()), IsOk());
    EXPECT_THAT(root->Send(Version(1, 1), Soon()), IsOk());
    EXPECT_THAT(root->Send(Version(2, 1), Soon()), IsOk());
  });
  EXPECT_THAT(Receive(1, 1, Soon()), IsOk());
  EXPECT_THAT(Receive(2, 1, Soon()), IsOk());
  learner.join();
  EXPECT_EQ(run_->heard().asked_for_group.size(), 1u);
}

TEST_F(BroadcastSeatTest, ComesToTheNextEpochAndLeavesTheOldOne) {
  const auto first = Announce(1);
  std::thread learner([&] { EXPECT_THAT(first->Form(Soon()), IsOk()); });
  EXPECT_THAT(Receive(1, 1, absl::Now() + absl::Seconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  learner.join();
  const auto second = Announce(2);
  std::thread next([&] {
    ASSERT_THAT(second->Form(Soon()), IsOk());
    EXPECT_THAT(second->Send(Version(2, 2), Soon()), IsOk());
  });
  EXPECT_THAT(Receive(2, 2, Soon()), IsOk());
  next.join();
  EXPECT_THAT(first->Send(Version(2, 1), Soon()), StatusIs(absl::StatusCode::kUnavailable))
      << "the learner sees that the seat was given up";
}

TEST_F(BroadcastSeatTest, WithoutASeatItSaysSoAndDoesNotAskAgain) {
  run_->AnnounceGroup(1, "", /*world_size=*/0);  // of others
  EXPECT_THAT(Receive(1, 1, Soon()), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Receive(2, 1, Soon()), StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(run_->heard().asked_for_group.size(), 1u);
  EXPECT_TRUE(seat_->HasLeft(Version(2, 1)->manifest()));
  EXPECT_FALSE(seat_->HasLeft(Version(2, 2)->manifest()));
}

TEST_F(BroadcastSeatTest, AGroupThatIsNeverAnnouncedIsWaitedForBriefly) {
  const absl::Time begun = absl::Now();
  EXPECT_THAT(Receive(1, 5, absl::Now() + absl::Minutes(5)),
              ::testing::AnyOf(StatusIs(absl::StatusCode::kUnavailable),
                               StatusIs(absl::StatusCode::kDeadlineExceeded)));
  EXPECT_LT(absl::Now() - begun, absl::Minutes(1));
}

TEST_F(BroadcastSeatTest, AnIdThatLeadsNowhereIsAFailureOfTheBroadcastAlone) {
  run_->AnnounceGroup(1, "no id of ours", /*world_size=*/2);
  EXPECT_THAT(Receive(1, 1, Soon()), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(BroadcastSeatTest, AHeartbeatThatSaysTheEpochIsOverEndsTheWait) {
  const auto root = Announce(1);
  std::thread learner([&] {
    ASSERT_THAT(root->Form(Soon()), IsOk());
    run_->EndGroups(1);  // it sends nothing, and does not abort
  });
  const absl::Time begun = absl::Now();
  EXPECT_THAT(Receive(1, 1, absl::Now() + absl::Minutes(5)), StatusIs(absl::StatusCode::kAborted));
  EXPECT_LT(absl::Now() - begun, absl::Minutes(1));
  learner.join();
}

TEST_F(BroadcastSeatTest, AnAbortEndsTheMeeting) {
  const auto root = Announce(1);  // which forms never
  std::thread aborter([&] { seat_->Abort("the worker stops"); });
  EXPECT_THAT(Receive(1, 1, absl::Now() + absl::Minutes(5)), StatusIs(absl::StatusCode::kAborted));
  aborter.join();
}

TEST_F(BroadcastSeatTest, BytesThatAreNotTheManifestsCostTheSeat) {
  const auto root = Announce(1);
  std::thread learner([&] {
    ASSERT_THAT(root->Form(Soon()), IsOk());
    EXPECT_THAT(
        root->Send(weights::MakeTestVersion({.version = 1, .comm_epoch = 1}, 4096, {{"w", {64}}}),
                   Soon()),
        ::testing::Not(StatusIs(absl::StatusCode::kDeadlineExceeded)));
  });
  const absl::Status status = Receive(1, 1, Soon());
  EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsUnavailable(status)) << status;
  learner.join();
  EXPECT_THAT(Receive(2, 1, Soon()), StatusIs(absl::StatusCode::kAborted));
}

}  // namespace
}  // namespace temper::rollout_worker
