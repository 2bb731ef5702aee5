// Who could be in the broadcast group, how a broadcast ended, and what publishing has to do with
// it.

#include "learner/broadcast_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "learner/publisher.h"
#include "services/base/stop_token.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/learner/fake_orchestrator.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/shared_memory_collective.h"
#include "weights/weight_source.h"

namespace temper::learner {
namespace {

using ::temper::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;
using weights::EpochEvent;
using weights::EpochPhase;

v1::Peer Worker(const std::string& id, uint64_t incarnation, const std::string& host) {
  v1::Peer peer;
  peer.set_role(v1::ROLE_ROLLOUT_WORKER);
  peer.set_member_id(id);
  peer.set_incarnation(incarnation);
  peer.set_host(host);
  peer.set_healthy(true);
  peer.set_has_version(true);
  return peer;
}

TEST(BroadcastPolicy, TakesLiveWorkersWhoseEngineRunsOnTheHostThatIsAskedFor) {
  std::vector<v1::Peer> peers = {Worker("a", 1, "here"), Worker("b", 1, "elsewhere"),
                                 Worker("silent", 1, "here"), Worker("loading", 1, "here"),
                                 Worker("reward", 1, "here")};
  peers[2].set_healthy(false);
  peers[3].set_has_version(false);
  peers[4].set_role(v1::ROLE_REWARD_SERVER);
  EXPECT_THAT(BroadcastCandidates(peers, "here"), ElementsAre("a/1"));
  EXPECT_THAT(BroadcastCandidates(peers, ""), UnorderedElementsAre("a/1", "b/1"));
}

TEST(BroadcastPolicy, NamesAnIncarnationAndFindsItAgain) {
  const v1::BroadcastPeer peer =
      BroadcastPeerOf(BroadcastName(Worker("pod/7", 18446744073709551615u, "")));
  EXPECT_EQ(peer.member_id(), "pod/7");
  EXPECT_EQ(peer.incarnation(), 18446744073709551615u);
}

TEST(BroadcastPolicy, SaysHowABroadcastEnded) {
  const auto outcome = [](EpochPhase from, EpochPhase to, EpochEvent::Kind kind) {
    const EpochEvent event{.kind = kind};
    return BroadcastOutcome({.from = from, .to = to, .event = &event}).value_or("none");
  };
  using Kind = EpochEvent::Kind;
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kReady, Kind::kSent), "sent");
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kBroadcasting, Kind::kSent), "sent")
      << "the next version began at once";
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kBroadcasting, Kind::kJoined), "none");
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kAborting, Kind::kTick), "deadline");
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kAborting, Kind::kLeft), "member_lost");
  EXPECT_EQ(outcome(EpochPhase::kBroadcasting, EpochPhase::kAborting, Kind::kFailed), "failed");
  EXPECT_EQ(outcome(EpochPhase::kForming, EpochPhase::kAborting, Kind::kLeft), "not_formed");
  EXPECT_EQ(outcome(EpochPhase::kForming, EpochPhase::kBroadcasting, Kind::kFormed), "none");
  EXPECT_EQ(outcome(EpochPhase::kReady, EpochPhase::kAborting, Kind::kVersionOut), "none");
}

TEST(Publisher, NamesTheGroupInTheManifestAndDoesNotWaitForIt) {
  testing::FakeOrchestrator orchestrator;
  weights::WeightSource shelf;
  absl::Mutex mutex;
  std::vector<std::string> announced;
  weights::GroupRunner group(
      {.back_end = std::make_shared<weights::SharedMemoryBackEnd>(),
       .candidates = [] { return std::set<std::string>{"a/1"}; },
       .announce =
           [&](uint64_t, const std::string&, const auto& members, absl::Time) {
             absl::MutexLock lock(&mutex);
             announced = members;
             return absl::OkStatus();
           },
       .end = [](uint64_t) {},
       .observe = [](const weights::GroupChange&) {}});
  base::StopToken never;
  const absl::Time patience = absl::Now() + absl::Seconds(20);
  while (group.CarryingEpoch() == 0 && absl::Now() < patience) {
    never.WaitFor(absl::Milliseconds(5));
  }
  Publisher publisher({.run_id = "run", .timeline = 1}, &shelf, &orchestrator, &group);
  // No member ever comes: a publication that waited for one would take the forming's 20 s.
  const absl::Time begun = absl::Now();
  ASSERT_THAT(publisher.Publish(weights::MakeTestVersion({.version = 3})), IsOk());
  EXPECT_LT(absl::Now() - begun, absl::Seconds(10));
  EXPECT_EQ(orchestrator.manifests().at(0).comm_epoch(), 1u);
  EXPECT_EQ((*shelf.Find("run", 1, 3))->manifest().comm_epoch(), 1u);
  absl::MutexLock lock(&mutex);
  const auto told = [&] { return !announced.empty(); };
  EXPECT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&told), absl::Seconds(20)));
  EXPECT_THAT(announced, ElementsAre("a/1"));
}

}  // namespace
}  // namespace temper::learner
