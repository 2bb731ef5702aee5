#include "weights/comm_epoch.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"
#include "tests/unit/weights/fake_communicator.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/epoch_runner.h"

namespace temper::weights {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = EpochEvent::Kind;
using Call = EpochAction::Kind;

const absl::Time kStart = absl::FromUnixSeconds(1000);
const EpochOptions kOptions{.form_timeout = absl::Seconds(2),
                            .broadcast_timeout = absl::Seconds(3),
                            .abort_timeout = absl::Seconds(1)};

// Feeds events one by one, all at one time unless it is moved.
class Machine {
 public:
  EpochMove Feed(EpochEvent event) {
    EpochMove move = Advance(state, event, now, kOptions);
    state = move.state;
    return move;
  }
  EpochMove Join(const std::string& member) {
    return Feed({.kind = Kind::kJoined, .member = member});
  }
  EpochMove Leave(const std::string& member) {
    return Feed({.kind = Kind::kLeft, .member = member});
  }
  EpochMove Out(uint64_t version) { return Feed({.kind = Kind::kVersionOut, .version = version}); }
  EpochMove Answer(Kind kind) {
    return Feed({.kind = kind, .comm_epoch = state.comm_epoch, .error = "e"});
  }
  EpochMove Tick(absl::Duration later) {
    now += later;
    return Feed({.kind = Kind::kTick});
  }

  EpochState state;
  absl::Time now = kStart;
};

Machine Broadcasting() {
  Machine machine;
  machine.Join("a");
  machine.Join("b");
  machine.Out(1);
  machine.Answer(Kind::kFormed);
  return machine;
}

TEST(CommEpochTest, FormsAGroupOfAllThatJoinedAndSends) {
  Machine machine;
  machine.Join("a");
  machine.Join("b");
  EpochMove move = machine.Out(1);
  EXPECT_EQ(move.action.call, Call::kForm);
  EXPECT_EQ(move.action.comm_epoch, 1u);
  EXPECT_THAT(move.action.members, ElementsAre("a", "b"));
  move = machine.Answer(Kind::kFormed);
  EXPECT_EQ(move.action.call, Call::kBroadcast);
  EXPECT_EQ(move.action.version, 1u);
  move = machine.Answer(Kind::kSent);
  EXPECT_EQ(machine.state.phase, EpochPhase::kReady);
  EXPECT_THAT(move.action.catch_up, IsEmpty());
}

TEST(CommEpochTest, KeepsTheGroupForTheNextVersion) {
  Machine machine = Broadcasting();
  machine.Answer(Kind::kSent);
  const EpochMove move = machine.Out(2);
  EXPECT_EQ(move.action.call, Call::kBroadcast);
  EXPECT_EQ(move.action.comm_epoch, 1u);
}

TEST(CommEpochTest, WithoutMembersThereIsNobodyToSendTo) {
  Machine machine;
  const EpochMove move = machine.Out(1);
  EXPECT_EQ(move.action.call, Call::kNone);
  EXPECT_THAT(move.reason, HasSubstr("nobody"));
}

TEST(CommEpochTest, RebuildsWhenAMemberHasJoinedAndTheJoinerCatchesUpMeanwhile) {
  Machine machine = Broadcasting();
  machine.Answer(Kind::kSent);
  EpochMove move = machine.Join("c");
  EXPECT_THAT(move.action.catch_up, ElementsAre("c"));
  EXPECT_EQ(move.action.catch_up_version, 1u);
  move = machine.Out(2);
  EXPECT_EQ(move.action.call, Call::kAbort);
  EXPECT_THAT(move.action.catch_up, IsEmpty()) << "version 1 was sent, version 2 is to come";
  move = machine.Answer(Kind::kAborted);
  EXPECT_EQ(move.action.call, Call::kForm);
  EXPECT_EQ(move.action.comm_epoch, 2u);
  EXPECT_THAT(move.action.members, ElementsAre("a", "b", "c"));
}

TEST(CommEpochTest, WhoJoinsWhileTheGroupFormsPullsItsVersion) {
  Machine machine;
  machine.Join("a");
  machine.Out(1);
  machine.Join("b");
  machine.Out(2);
  const EpochMove move = machine.Answer(Kind::kFormed);
  EXPECT_EQ(move.action.version, 2u) << "only the newest is sent";
  EXPECT_THAT(move.action.catch_up, ElementsAre("b"));
  EXPECT_EQ(move.action.catch_up_version, 2u);
}

TEST(CommEpochTest, ABroadcastThatMissesItsDeadlineIsAbortedAndItsGroupCatchesUp) {
  Machine machine = Broadcasting();
  EXPECT_EQ(machine.Tick(absl::Seconds(2.9)).action.call, Call::kNone);
  const EpochMove move = machine.Tick(absl::Seconds(0.2));
  EXPECT_EQ(move.action.call, Call::kAbort);
  EXPECT_THAT(move.reason, HasSubstr("deadline"));
  EXPECT_THAT(move.action.catch_up, ElementsAre("a", "b"));
  EXPECT_EQ(move.action.catch_up_version, 1u);
}

TEST(CommEpochTest, ALostMemberEndsTheEpochAndTheOthersCatchUp) {
  Machine machine = Broadcasting();
  const EpochMove move = machine.Leave("a");
  EXPECT_EQ(move.action.call, Call::kAbort);
  EXPECT_THAT(move.reason, HasSubstr("lost: a"));
  EXPECT_THAT(move.action.catch_up, ElementsAre("b"));
}

TEST(CommEpochTest, AGroupThatDoesNotFormIsAborted) {
  Machine machine;
  machine.Join("a");
  machine.Out(1);
  EXPECT_EQ(machine.Tick(absl::Seconds(2)).action.call, Call::kAbort);
  machine.Answer(Kind::kAborted);
  EXPECT_EQ(machine.Out(2).action.comm_epoch, 2u);
  EXPECT_EQ(machine.Answer(Kind::kFailed).action.call, Call::kAbort);
}

TEST(CommEpochTest, AnAbortThatHangsIsAbandonedAndTheNextVersionFormsANewGroup) {
  Machine machine = Broadcasting();
  machine.Answer(Kind::kFailed);
  machine.Out(2);
  EpochMove move = machine.Tick(absl::Seconds(1));
  EXPECT_EQ(move.action.call, Call::kAbandon);
  move = machine.Tick(absl::ZeroDuration());
  EXPECT_EQ(move.action.call, Call::kForm);
  EXPECT_EQ(move.action.comm_epoch, 2u);
}

TEST(CommEpochTest, AnswersOfAnOlderEpochAreLateAndChangeNothing) {
  Machine machine = Broadcasting();
  for (const Kind kind : {Kind::kFormed, Kind::kSent, Kind::kFailed, Kind::kAborted}) {
    const EpochMove move = machine.Feed({.kind = kind, .comm_epoch = 0});
    EXPECT_EQ(move.action.call, Call::kNone);
    EXPECT_EQ(move.state.phase, EpochPhase::kBroadcasting);
    EXPECT_THAT(move.reason, HasSubstr("late"));
  }
}

TEST(CommEpochTest, ForetellsTheEpochThatCarriesTheNextVersion) {
  Machine machine;
  EXPECT_EQ(CarryingEpoch(machine.state), 0u) << "nobody to send to";
  machine.Join("a");
  EXPECT_EQ(CarryingEpoch(machine.state), 1u);
  machine.Out(1);
  EXPECT_EQ(CarryingEpoch(machine.state), 1u) << "forming: the newest version goes first";
  machine.Answer(Kind::kFormed);
  EXPECT_EQ(CarryingEpoch(machine.state), 1u) << "broadcasting to the same members";
  machine.Join("b");
  EXPECT_EQ(CarryingEpoch(machine.state), 2u);
  machine.Answer(Kind::kSent);
  EXPECT_EQ(CarryingEpoch(machine.state), 2u) << "ready, other members";
  const uint64_t foretold = CarryingEpoch(machine.state);
  machine.Out(2);
  machine.Answer(Kind::kAborted);
  EXPECT_EQ(machine.Answer(Kind::kFormed).action.comm_epoch, foretold);
  machine.Answer(Kind::kFailed);
  EXPECT_EQ(CarryingEpoch(machine.state), 3u) << "aborting";
}

// One run of the machine on a communicator with faults, joins, leaves and versions, all drawn from
// the seed, and at the end a healthy communicator.
class FaultyRun {
 public:
  explicit FaultyRun(uint64_t seed)
      : seed_(seed), communicator_(seed, &clock_, &members_, &versions_), runner_(Options()) {
    for (uint64_t v = 1; v <= kVersions; ++v) {
      versions_[v] =
          MakeTestVersion({.version = v}, 512, {{"a", {100}}, {"b", {90}}, {"c", {120}}});
    }
  }

  void Run() {
    uint64_t out = 0;
    for (int step = 0; step < 600; ++step) {
      switch (Draw(12)) {
        case 0:
          Join(absl::StrCat("m", Draw(5)));
          break;
        case 1:
          if (!alive_.empty() && Draw(3) == 0) Leave(*alive_.begin());
          break;
        case 2:
          if (out < kVersions && Draw(2) == 0) runner_.VersionOut(++out);
          break;
        default:
          break;
      }
      PollOnce();
    }
    communicator_.Heal();
    for (int step = 0; step < 200; ++step) PollOnce();
    EXPECT_TRUE(runner_.state().phase == EpochPhase::kNoGroup ||
                runner_.state().phase == EpochPhase::kReady)
        << EpochPhaseName(runner_.state().phase);
    for (const std::string& name : alive_) {
      if (out == 0) continue;
      ASSERT_NE(members_[name].installed, nullptr) << name;
      EXPECT_EQ(members_[name].installed->manifest().version(), out) << name;
    }
    calls_with_trouble += moves_to_abort_;
  }

  static int calls_with_trouble;

 private:
  static constexpr uint64_t kVersions = 12;

  EpochRunnerOptions Options() {
    return {.epoch = kOptions,
            .communicator = &communicator_,
            .catch_up =
                [this](const std::vector<std::string>& members, uint64_t version) {
                  for (const std::string& name : members)
                    members_[name].PullAll(*versions_.at(version));
                },
            .observe =
                [this](const EpochEvent&, const EpochMove& move) {
                  EXPECT_FALSE(move.reason.empty());
                  if (move.action.call == Call::kAbort) ++moves_to_abort_;
                },
            .clock = &clock_};
  }

  void Join(const std::string& name) {
    if (!alive_.insert(name).second) return;
    members_[name] = FakeMember();
    runner_.Join(name);
  }
  void Leave(std::string name) {  // by value: it may be one of alive_
    alive_.erase(name);
    runner_.Leave(name);
  }

  void PollOnce() {
    const EpochPhase phase = runner_.state().phase;
    const uint64_t epoch = runner_.state().comm_epoch;
    clock_.Advance(absl::Milliseconds(50));
    runner_.Poll();
    for (const std::string& name : communicator_.lost()) alive_.erase(name);
    // Never past a deadline by more than the time between two polls.
    EXPECT_LT(clock_.Now(), runner_.state().deadline + absl::Milliseconds(50))
        << EpochPhaseName(phase) << " of epoch " << epoch << ", seed " << seed_;
    // Never half of a version: whatever is installed has every byte.
    for (auto& [name, member] : members_) {
      if (member.installed == nullptr) continue;
      const WeightVersion& source = *versions_.at(member.installed->manifest().version());
      for (size_t b = 0; b < source.buckets().size(); ++b) {
        ASSERT_EQ(*member.installed->buckets()[b], *source.buckets()[b]) << name;
      }
    }
  }

  uint64_t Draw(uint64_t bound) { return base::UniformBelow(seed_ + 1'000'000, draws_++, bound); }

  const uint64_t seed_;
  uint32_t draws_ = 0;
  int moves_to_abort_ = 0;
  testing::FakeClock clock_;
  std::map<uint64_t, std::shared_ptr<const WeightVersion>> versions_;
  std::map<std::string, FakeMember> members_;
  std::set<std::string> alive_;
  FakeCommunicator communicator_;
  EpochRunner runner_;
};
int FaultyRun::calls_with_trouble = 0;

TEST(EpochRunnerTest, EndsInANewEpochOrACatchUpWhateverTheCommunicatorDoes) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    FaultyRun(seed).Run();
    if (HasFailure()) break;
  }
  EXPECT_GT(FaultyRun::calls_with_trouble, 300) << "the faults must have happened";
}

}  // namespace
}  // namespace temper::weights
