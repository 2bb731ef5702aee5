// Where learner and workers meet for a broadcast group: the decisions, and what the coordinator
// makes of them.

#include "orchestrator/broadcast_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/unit/orchestrator/test_run.h"

namespace temper::orchestrator {
namespace {

using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

BroadcastGroup Group(uint64_t comm_epoch, const std::vector<std::string>& members) {
  BroadcastGroup group{.comm_epoch = comm_epoch, .id = absl::StrCat("id-", comm_epoch)};
  for (const std::string& name : members) {
    group.members.emplace_back().set_member_id(name);
    group.members.back().set_incarnation(1);
  }
  return group;
}

TEST(BroadcastGroups, GiveEachMemberItsRankAndNobodyElseASeat) {
  const auto groups = AfterForm({}, Group(1, {"w1", "w2"}));
  ASSERT_THAT(groups, IsOk());
  const auto seat = FindSeat(*groups, 1, "w2", 1);
  ASSERT_THAT(seat, IsOk());
  EXPECT_EQ(seat->id(), "id-1");
  EXPECT_EQ(seat->rank(), 2u);
  EXPECT_EQ(seat->world_size(), 3u);
  EXPECT_THAT(FindSeat(*groups, 1, "w3", 1).status(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(FindSeat(*groups, 1, "w2", 2).status(), StatusIs(absl::StatusCode::kNotFound))
      << "another incarnation";
}

TEST(BroadcastGroups, RefuseByNumber) {
  auto groups = AfterForm({}, Group(3, {"w1"}));
  ASSERT_THAT(groups, IsOk());
  EXPECT_THAT(FindSeat(*groups, 4, "w1", 1).status(), StatusIs(absl::StatusCode::kUnavailable))
      << "not announced yet";
  EXPECT_THAT(FindSeat(*groups, 2, "w1", 1).status(), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(AfterForm(*groups, Group(2, {"w1"})).status(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("late")));
  EXPECT_THAT(AfterForm(*groups, Group(3, {"w1"})), IsOk()) << "the same twice does no harm";
  BroadcastGroup other = Group(3, {"w1"});
  other.id = "another";
  EXPECT_THAT(AfterForm(*groups, other).status(), StatusIs(absl::StatusCode::kAborted));
}

TEST(BroadcastGroups, AnEndIsForGoodAlsoOfAGroupThatNeverWas) {
  auto groups = AfterForm({}, Group(1, {"w1"}));
  ASSERT_THAT(groups, IsOk());
  BroadcastGroups ended = AfterEnd(*groups, 2);
  EXPECT_EQ(ended.current_epoch(), 0u);
  EXPECT_EQ(ended.ended, 2u);
  EXPECT_THAT(FindSeat(ended, 1, "w1", 1).status(), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(AfterForm(ended, Group(2, {"w1"})).status(), StatusIs(absl::StatusCode::kAborted));
  ended = AfterEnd(ended, 1);
  EXPECT_EQ(ended.ended, 2u) << "a late word changes nothing";
  EXPECT_THAT(AfterForm(ended, Group(3, {"w1"})), IsOk());
}

TEST(BroadcastGroups, RefuseWhatCannotBe) {
  using absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(AfterForm({}, Group(0, {"w1"})).status(), StatusIs(kInvalidArgument));
  EXPECT_THAT(AfterForm({}, Group(1, {})).status(), StatusIs(kInvalidArgument));
  BroadcastGroup group = Group(1, {"w1"});
  group.id.assign(2000, 'x');
  EXPECT_THAT(AfterForm({}, group).status(), StatusIs(kInvalidArgument));
}

class CoordinatorGroups : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_THAT(run_.BeginTimeline(0), IsOk()); }

  absl::Status Form(uint64_t comm_epoch, uint64_t timeline, uint64_t learner) {
    v1::FormBroadcastGroupRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline);
    request.set_learner_incarnation(learner);
    request.set_comm_epoch(comm_epoch);
    request.set_id("id");
    request.add_members()->set_member_id("w1");
    request.mutable_members(0)->set_incarnation(1);
    v1::FormBroadcastGroupReply reply;
    return run_->FormBroadcastGroup(request, &reply);
  }
  absl::Status End(uint64_t comm_epoch) {
    v1::EndBroadcastGroupRequest request;
    request.set_run_id("run");
    request.set_timeline(1);
    request.set_learner_incarnation(1);
    request.set_comm_epoch(comm_epoch);
    v1::EndBroadcastGroupReply reply;
    return run_->EndBroadcastGroup(request, &reply);
  }
  absl::StatusOr<v1::GetBroadcastGroupReply> Get(uint64_t comm_epoch, uint64_t timeline = 1) {
    v1::GetBroadcastGroupRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline);
    request.set_member_id("w1");
    request.set_incarnation(1);
    request.set_comm_epoch(comm_epoch);
    v1::GetBroadcastGroupReply reply;
    const absl::Status status = run_->GetBroadcastGroup(request, &reply);
    if (!status.ok()) return status;
    return reply;
  }
  v1::HeartbeatReply Beat(const std::string& member) {
    v1::HeartbeatRequest request;
    request.set_run_id("run");
    request.set_member_id(member);
    request.set_incarnation(1);
    v1::HeartbeatReply reply;
    EXPECT_THAT(run_->Heartbeat(request, &reply), IsOk());
    return reply;
  }

  TestRun run_;
};

TEST_F(CoordinatorGroups, HeartbeatsTellTheEpochAndWhichAreOver) {
  EXPECT_EQ(Beat("w1").comm_epoch(), 0u);
  ASSERT_THAT(Form(1, 1, 1), IsOk());
  EXPECT_EQ(Beat("w1").comm_epoch(), 1u);
  EXPECT_EQ(Beat("w1").ended_comm_epoch(), 0u);
  EXPECT_THAT(Get(1), IsOk());
  ASSERT_THAT(End(1), IsOk());
  EXPECT_EQ(Beat("w1").comm_epoch(), 0u);
  EXPECT_EQ(Beat("w1").ended_comm_epoch(), 1u);
  EXPECT_THAT(Get(1).status(), StatusIs(absl::StatusCode::kAborted));
}

TEST_F(CoordinatorGroups, ANewTimelineForgetsTheGroupAndRefusesTheOldLearner) {
  ASSERT_THAT(Form(1, 1, 1), IsOk());
  ASSERT_THAT(run_.BeginTimeline(0), IsOk());
  EXPECT_EQ(Beat("w1").comm_epoch(), 0u);
  EXPECT_THAT(Get(1, 1).status(), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(Form(2, 1, 1), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(Form(1, 2, 1), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Form(1, 2, 2), IsOk()) << "numbers begin anew";
}

TEST_F(CoordinatorGroups, ARestartForgetsTheGroupAndHearsOfTheNext) {
  ASSERT_THAT(Form(1, 1, 1), IsOk());
  run_.Restart();
  EXPECT_EQ(Beat("w1").comm_epoch(), 0u);
  EXPECT_THAT(Get(1).status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Form(2, 1, 1), IsOk());
  EXPECT_THAT(Get(2), IsOk());
}

TEST_F(CoordinatorGroups, TheLearnerHearsWhichWorkersCouldBeMembers) {
  v1::JoinRequest join;
  join.set_role(v1::ROLE_ROLLOUT_WORKER);
  join.set_member_id("w2");
  join.set_incarnation(7);
  join.set_host("elsewhere");
  v1::JoinReply joined;
  ASSERT_THAT(run_->Join(join, &joined), IsOk());
  ASSERT_THAT(run_.Publish(0), IsOk());
  ASSERT_TRUE(run_.Acknowledge("w1", 0));
  std::map<std::string, v1::Peer> peers;
  const v1::HeartbeatReply to_learner = Beat("learner");
  for (const v1::Peer& peer : to_learner.peers()) peers[peer.member_id()] = peer;
  ASSERT_TRUE(peers.contains("w1") && peers.contains("w2"));
  EXPECT_TRUE(peers["w1"].has_version());
  EXPECT_FALSE(peers["w2"].has_version());
  EXPECT_EQ(peers["w2"].host(), "elsewhere");
  EXPECT_EQ(peers["w2"].incarnation(), 7u);
  const v1::HeartbeatReply to_worker = Beat("w1");
  for (const v1::Peer& peer : to_worker.peers()) {
    EXPECT_NE(peer.role(), v1::ROLE_ROLLOUT_WORKER) << "workers need not know each other";
  }
}

}  // namespace
}  // namespace temper::orchestrator
