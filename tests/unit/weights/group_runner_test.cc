// The root's thread with members as threads over shared memory: real groups, no processes.

#include "weights/group_runner.h"

#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/stop_token.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/weights/version_builder.h"
#include "weights/shared_memory_collective.h"

namespace temper::weights {
namespace {

using ::temper::testing::IsOk;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(20);

class GroupRunnerTest : public ::testing::Test {
 protected:
  struct Group {
    std::string id;
    std::vector<std::string> members;
  };

  void SetUp() override { Start(absl::Seconds(10)); }
  void Start(absl::Duration form_timeout) {
    runner_ = nullptr;
    runner_ = std::make_unique<GroupRunner>(GroupRunnerOptions{
        .back_end = std::make_shared<SharedMemoryBackEnd>(),
        .candidates =
            [this] {
              absl::MutexLock lock(&mutex_);
              return alive_;
            },
        .announce =
            [this](uint64_t epoch, const std::string& id, const auto& members, absl::Time) {
              absl::MutexLock lock(&mutex_);
              groups_[epoch] = {id, members};
              return absl::OkStatus();
            },
        .end =
            [this](uint64_t epoch) {
              absl::MutexLock lock(&mutex_);
              ended_.push_back(epoch);
            },
        .observe =
            [this](const GroupChange& change) {
              absl::MutexLock lock(&mutex_);
              reasons_.push_back(change.move->reason);
              if (change.event->kind == EpochEvent::Kind::kSent) ++sent_;
            },
        .form_timeout = form_timeout,
        .broadcast_timeout = absl::Seconds(10)});
  }
  void Alive(std::set<std::string> names) {
    absl::MutexLock lock(&mutex_);
    alive_ = std::move(names);
  }
  // Waits until the next version would be carried by `epoch`.
  void AwaitCarrying(uint64_t epoch) {
    // The runner looks at who is alive ten times a second, and nothing tells when it has.
    base::StopToken never;
    const absl::Time end = absl::Now() + kPatience;
    while (runner_->CarryingEpoch() != epoch && absl::Now() < end) {
      never.WaitFor(absl::Milliseconds(5));
    }
    ASSERT_EQ(runner_->CarryingEpoch(), epoch);
  }
  template <typename Condition>
  void AwaitThat(const Condition& condition) {
    absl::MutexLock lock(&mutex_);
    const auto holds = [&] { return condition(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&holds), kPatience));
  }
  std::shared_ptr<const WeightVersion> Out(uint64_t number) {
    auto version = MakeTestVersion({.version = number, .comm_epoch = runner_->CarryingEpoch()});
    runner_->VersionOut(version);
    return version;
  }

  // A member's side: comes to the group of `epoch` once it is announced.
  std::unique_ptr<Collective> Meet(const std::string& name, uint64_t epoch) {
    AwaitThat([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return groups_.contains(epoch); });
    Group group;
    {
      absl::MutexLock lock(&mutex_);
      group = groups_[epoch];
    }
    const auto at = std::find(group.members.begin(), group.members.end(), name);
    EXPECT_NE(at, group.members.end()) << name;
    auto seat = *back_end_.Join({.id = group.id,
                                 .rank = static_cast<int>(at - group.members.begin()) + 1,
                                 .world_size = static_cast<int>(group.members.size()) + 1});
    return seat;
  }
  absl::Status Receive(Collective* seat, const WeightVersion& version) {
    auto assembler = *VersionAssembler::Create(version.manifest());
    absl::Status status = seat->Receive(assembler.get(), absl::Now() + kPatience);
    if (status.ok()) status = assembler->Finish().status();
    return status;
  }

  SharedMemoryBackEnd back_end_;
  absl::Mutex mutex_;
  std::set<std::string> alive_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Group> groups_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> ended_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> reasons_ ABSL_GUARDED_BY(mutex_);
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<GroupRunner> runner_;  // ends first
};

TEST_F(GroupRunnerTest, WithoutMembersAManifestNamesNoGroup) {
  EXPECT_EQ(runner_->CarryingEpoch(), 0u);
  Out(1);
}

TEST_F(GroupRunnerTest, BringsOneVersionAfterAnotherInOneGroup) {
  Alive({"a", "b"});
  AwaitCarrying(1);
  const auto first = Out(1);
  const auto member = [&](const std::string& name) {
    const auto seat = Meet(name, 1);
    ASSERT_THAT(seat->Form(absl::Now() + kPatience), IsOk());
    EXPECT_THAT(Receive(seat.get(), *first), IsOk());
    for (uint64_t number = 2; number <= 5; ++number) {
      EXPECT_THAT(Receive(seat.get(), *MakeTestVersion({.version = number, .comm_epoch = 1})),
                  IsOk());
    }
  };
  std::thread a([&] { member("a"); });
  std::thread b([&] { member("b"); });
  for (uint64_t number = 2; number <= 5; ++number) {
    AwaitThat([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return sent_ == number - 1; });
    AwaitCarrying(1);
    Out(number);
  }
  a.join();
  b.join();
}

TEST_F(GroupRunnerTest, AMemberThatNeverComesIsLeftOutAndTheNextGroupFormsWithoutIt) {
  Start(absl::Milliseconds(300));
  Alive({"a", "frozen"});
  AwaitCarrying(1);
  Out(1);
  {
    const auto seat = Meet("a", 1);
    EXPECT_FALSE(seat->Form(absl::Now() + kPatience).ok());
  }
  AwaitThat([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return std::find(ended_.begin(), ended_.end(), 1u) != ended_.end();
  });
  AwaitCarrying(2);
  const auto second = Out(2);
  const auto seat = Meet("a", 2);
  ASSERT_THAT(seat->Form(absl::Now() + kPatience), IsOk());
  EXPECT_THAT(Receive(seat.get(), *second), IsOk());
  absl::MutexLock lock(&mutex_);
  EXPECT_THAT(groups_[2].members, ::testing::ElementsAre("a"));
}

TEST_F(GroupRunnerTest, AMemberThatComesBackUnderAnotherNameIsTakenIn) {
  Start(absl::Milliseconds(300));
  Alive({"frozen/1"});
  AwaitCarrying(1);
  Out(1);
  AwaitCarrying(0);
  Alive({"frozen/2"});
  AwaitCarrying(2);
}

TEST_F(GroupRunnerTest, AMemberLostInABroadcastEndsTheEpochAndTheOthersMeetAgain) {
  Alive({"a", "b"});
  AwaitCarrying(1);
  const auto first = Out(1);
  auto a = Meet("a", 1);
  auto b = Meet("b", 1);
  std::thread forming([&] { EXPECT_THAT(b->Form(absl::Now() + kPatience), IsOk()); });
  EXPECT_THAT(a->Form(absl::Now() + kPatience), IsOk());
  forming.join();
  b = nullptr;                                            // it gives its seat up
  const absl::Status ignored = Receive(a.get(), *first);  // it may have been quicker
  (void)ignored;
  AwaitThat([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return std::find(ended_.begin(), ended_.end(), 1u) != ended_.end();
  });
  AwaitCarrying(2);
  const auto second = Out(2);
  a = Meet("a", 2);
  ASSERT_THAT(a->Form(absl::Now() + kPatience), IsOk());
  EXPECT_THAT(Receive(a.get(), *second), IsOk());
}

TEST_F(GroupRunnerTest, AGroupThatNoManifestNamesIsNotAnnounced) {
  Alive({"a"});
  AwaitCarrying(1);
  runner_->VersionOut(MakeTestVersion({.version = 1, .comm_epoch = 9}));
  AwaitThat([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return std::find(ended_.begin(), ended_.end(), 1u) != ended_.end();
  });
  absl::MutexLock lock(&mutex_);
  EXPECT_FALSE(groups_.contains(1));
  EXPECT_THAT(reasons_, Contains(HasSubstr("names epoch 9")));
}

}  // namespace
}  // namespace temper::weights
