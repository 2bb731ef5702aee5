#include "services/member/membership_client.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/rpc/reply.h"
#include "services/rpc/server.h"
#include "tests/support/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace temper::member {
namespace {

using temper::testing::FakeClock;
using temper::testing::IsOk;
using temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// An orchestrator that answers what the test says and remembers what it was asked.
class FakeOrchestrator final : public v1::OrchestratorService::CallbackService {
 public:
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const v1::JoinRequest* request, v1::JoinReply* reply) override {
    return rpc::Reply(context, nullptr, "Join", [&] {
      absl::MutexLock lock(&mutex);
      joins.push_back(*request);
      *reply = join_reply;
      return join_status;
    });
  }
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context,
                                      const v1::HeartbeatRequest* request,
                                      v1::HeartbeatReply* reply) override {
    return rpc::Reply(context, nullptr, "Heartbeat", [&] {
      absl::MutexLock lock(&mutex);
      beats.push_back(*request);
      *reply = heartbeat_reply;
      const absl::Status answer = heartbeat_status;
      if (absl::IsNotFound(answer)) heartbeat_status = absl::OkStatus();  // known once it rejoined
      return answer;
    });
  }
  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context,
                                  const v1::LeaveRequest* request, v1::LeaveReply*) override {
    return rpc::Reply(context, nullptr, "Leave", [&] {
      absl::MutexLock lock(&mutex);
      leaves.push_back(*request);
      return absl::OkStatus();
    });
  }

  absl::Mutex mutex;
  absl::Status join_status ABSL_GUARDED_BY(mutex);
  absl::Status heartbeat_status ABSL_GUARDED_BY(mutex);
  v1::JoinReply join_reply ABSL_GUARDED_BY(mutex);
  v1::HeartbeatReply heartbeat_reply ABSL_GUARDED_BY(mutex);
  std::vector<v1::JoinRequest> joins ABSL_GUARDED_BY(mutex);
  std::vector<v1::HeartbeatRequest> beats ABSL_GUARDED_BY(mutex);
  std::vector<v1::LeaveRequest> leaves ABSL_GUARDED_BY(mutex);
};

class MembershipClientTest : public ::testing::Test {
 protected:
  MembershipClientTest() {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.join_reply.set_run_id("run-a");
    orchestrator_.join_reply.set_timeline(3);
    orchestrator_.join_reply.set_heartbeat_seconds(1);
    orchestrator_.heartbeat_reply.set_state(v1::RUN_STATE_TRAINING);
    orchestrator_.heartbeat_reply.set_timeline(3);
    server_ = rpc::RpcServer::Create({.services = {&orchestrator_}}).value();
  }

  MembershipOptions Options() {
    return {.orchestrator_address = server_->address(),
            .role = v1::ROLE_ROLLOUT_WORKER,
            .member_id = "w-1",
            .incarnation = 9,
            .clock = &clock_};
  }
  // Joins and waits for the first heartbeat's answer.
  std::unique_ptr<MembershipClient> Join() {
    auto client = MembershipClient::Create(Options());
    EXPECT_THAT(client, IsOk());
    (*client)->AwaitChange(0, absl::InfiniteFuture());
    clock_.AwaitWaiters(1);
    return *std::move(client);
  }
  // Lets the next heartbeat happen and waits for what it changes in the view.
  MembershipView NextChange(MembershipClient* client, absl::Duration wait = absl::Seconds(1)) {
    const uint64_t revision = client->view().revision;
    clock_.AwaitWaiters(1);
    clock_.Advance(wait);
    return client->AwaitChange(revision, absl::InfiniteFuture());
  }

  FakeClock clock_;
  FakeOrchestrator orchestrator_;
  std::unique_ptr<rpc::RpcServer> server_;
};

TEST_F(MembershipClientTest, JoinsAndBeatsAtOnce) {
  const auto client = Join();
  EXPECT_EQ(client->run_id(), "run-a");
  EXPECT_EQ(client->view().state, v1::RUN_STATE_TRAINING);
  EXPECT_EQ(client->view().latest_version, std::nullopt);
  absl::MutexLock lock(&orchestrator_.mutex);
  ASSERT_EQ(orchestrator_.joins.size(), 1);
  EXPECT_EQ(orchestrator_.joins[0].member_id(), "w-1");
  EXPECT_EQ(orchestrator_.joins[0].incarnation(), 9);
  ASSERT_EQ(orchestrator_.beats.size(), 1);
  EXPECT_EQ(orchestrator_.beats[0].run_id(), "run-a");
}

TEST_F(MembershipClientTest, TheViewFollowsTheHeartbeats) {
  const auto client = Join();
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    v1::HeartbeatReply& reply = orchestrator_.heartbeat_reply;
    reply.set_has_version(true);
    reply.set_latest_version(4);
    (*reply.mutable_desired())["rollout_worker"] = 3;
    for (const char* name : {"r-2", "r-1", "r-3"}) {
      v1::Peer* peer = reply.add_peers();
      peer->set_role(v1::ROLE_REWARD_SERVER);
      peer->set_member_id(name);
      peer->set_address(std::string(name) + ":80");
      peer->set_healthy(std::string(name) != "r-3");
    }
  }
  const MembershipView view = NextChange(client.get());
  EXPECT_EQ(view.latest_version, 4);
  EXPECT_EQ(view.desired.at("rollout_worker"), 3);
  EXPECT_THAT(PeerAddresses(view, v1::ROLE_REWARD_SERVER), ElementsAre("r-1:80", "r-2:80"));
  EXPECT_THAT(PeerAddresses(view, v1::ROLE_LEARNER), ElementsAre());
}

TEST_F(MembershipClientTest, HeartbeatsNameWhatIsHeldAndAcknowledged) {
  const auto client = Join();
  v1::GroupRef ref;
  ref.set_group_index(12);
  client->SetHolding({ref});
  client->SetAcknowledged(3, 5);
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_reply.set_comm_epoch(1);  // a change to wait for
  }
  const uint64_t revision = client->view().revision;
  client->BeatNow();  // without the clock moving
  client->AwaitChange(revision, absl::InfiniteFuture());
  absl::MutexLock lock(&orchestrator_.mutex);
  const v1::HeartbeatRequest& beat = orchestrator_.beats.back();
  ASSERT_EQ(beat.holding_size(), 1);
  EXPECT_EQ(beat.holding(0).group_index(), 12);
  EXPECT_EQ(beat.acknowledged_timeline(), 3);
  EXPECT_EQ(beat.acknowledged_version(), 5);
}

TEST_F(MembershipClientTest, AForgottenMemberRejoinsUnderTheSameIncarnation) {
  const auto client = Join();
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_status = absl::NotFoundError("restarted");
    orchestrator_.join_reply.set_timeline(4);
    orchestrator_.heartbeat_reply.set_timeline(4);
  }
  const MembershipView view = NextChange(client.get());
  EXPECT_EQ(view.rejoins, 1);
  EXPECT_EQ(view.timeline, 4);
  EXPECT_FALSE(view.leave);
  absl::MutexLock lock(&orchestrator_.mutex);
  ASSERT_EQ(orchestrator_.joins.size(), 2);
  EXPECT_EQ(orchestrator_.joins[1].incarnation(), 9);
  EXPECT_EQ(orchestrator_.joins[1].run_id(), "run-a");
}

TEST_F(MembershipClientTest, ARejoinIntoAnotherRunEndsTheMembership) {
  const auto client = Join();
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_status = absl::NotFoundError("restarted");
    orchestrator_.join_reply.set_run_id("run-b");
  }
  const MembershipView view = NextChange(client.get());
  EXPECT_TRUE(view.leave);
  EXPECT_THAT(view.end, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("run-b")));
}

TEST_F(MembershipClientTest, ASilentOrchestratorIsBorneForAWhileThenLost) {
  MembershipOptions options = Options();
  base::StopToken leave_signal;
  options.leave_signal = &leave_signal;
  options.silence_limit = absl::Seconds(30);
  const auto client = MembershipClient::Create(options).value();
  client->AwaitChange(0, absl::InfiniteFuture());
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_status = absl::UnavailableError("restarting");
  }
  const MembershipView silent = NextChange(client.get());
  EXPECT_FALSE(silent.connected);
  EXPECT_FALSE(silent.leave);
  EXPECT_FALSE(leave_signal.StopRequested());
  const MembershipView lost = NextChange(client.get(), absl::Seconds(30));
  EXPECT_TRUE(lost.leave);
  EXPECT_THAT(lost.end, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(leave_signal.WaitUntil(absl::InfiniteFuture()));
}

TEST_F(MembershipClientTest, AnAnswerAfterSilenceConnectsAgain) {
  const auto client = Join();
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_status = absl::UnavailableError("restarting");
  }
  EXPECT_FALSE(NextChange(client.get()).connected);
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_status = absl::OkStatus();
  }
  EXPECT_TRUE(NextChange(client.get()).connected);
}

TEST_F(MembershipClientTest, TheEndOfTheRunRaisesTheLeaveSignalAndLeaveSaysGoodbyeOnce) {
  MembershipOptions options = Options();
  base::StopToken leave_signal;
  options.leave_signal = &leave_signal;
  const auto client = MembershipClient::Create(options).value();
  client->AwaitChange(0, absl::InfiniteFuture());
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.heartbeat_reply.set_state(v1::RUN_STATE_FINISHED);
  }
  const MembershipView view = NextChange(client.get());
  EXPECT_TRUE(view.leave);
  EXPECT_THAT(view.end, IsOk());
  EXPECT_TRUE(leave_signal.WaitUntil(absl::InfiniteFuture()));
  EXPECT_THAT(client->Leave(absl::Seconds(30)), IsOk());
  EXPECT_THAT(client->Leave(absl::Seconds(30)), IsOk());
  absl::MutexLock lock(&orchestrator_.mutex);
  ASSERT_EQ(orchestrator_.leaves.size(), 1);
  EXPECT_EQ(orchestrator_.leaves[0].incarnation(), 9);
}

TEST_F(MembershipClientTest, ARefusedJoinIsReturned) {
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.join_status = absl::FailedPreconditionError("incarnation 10 is known");
  }
  EXPECT_THAT(MembershipClient::Create(Options()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("incarnation 10")));
}

TEST_F(MembershipClientTest, AnAnswerWithoutARunOrAnIntervalIsRefused) {
  {
    absl::MutexLock lock(&orchestrator_.mutex);
    orchestrator_.join_reply.set_heartbeat_seconds(0);
  }
  EXPECT_THAT(MembershipClient::Create(Options()), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(MembershipClientTest, AStopEndsTheWaitForAnOrchestratorThatIsNotThere) {
  MembershipOptions options = Options();
  base::StopToken stop;
  stop.RequestStop();
  options.stop = &stop;
  EXPECT_THAT(MembershipClient::Create(options), StatusIs(absl::StatusCode::kCancelled));
}

TEST(MembershipNamesTest, TheDefaultIdNamesRoleAndProcess) {
  EXPECT_THAT(DefaultMemberId(v1::ROLE_REWARD_SERVER), HasSubstr("reward_server-"));
}

}  // namespace
}  // namespace temper::member
