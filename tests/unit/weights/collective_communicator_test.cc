#include "weights/collective_communicator.h"

#include <deque>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/stop_token.h"
#include "tests/unit/weights/version_builder.h"

namespace temper::weights {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = CommProgress::State;

constexpr absl::Duration kPatience = absl::Seconds(20);

// A back end whose calls do as the test says; by default they succeed at once.
struct Script {
  std::function<absl::Status(base::StopToken* aborted)> form;
  std::function<absl::Status(base::StopToken* aborted)> send;
  std::vector<int> lost;
  absl::Status make_id;
};

class ScriptedCollective final : public Collective {
 public:
  explicit ScriptedCollective(Script script) : script_(std::move(script)) {}
  absl::Status Form(absl::Time) override {
    return script_.form ? script_.form(&aborted_) : absl::OkStatus();
  }
  absl::Status Send(std::shared_ptr<const WeightVersion>, absl::Time) override {
    return script_.send ? script_.send(&aborted_) : absl::OkStatus();
  }
  absl::Status Receive(VersionAssembler*, absl::Time) override {
    return absl::FailedPreconditionError("rank 0");
  }
  std::vector<int> Lost() const override { return script_.lost; }
  void Abort(std::string_view) override { aborted_.RequestStop(); }

 private:
  const Script script_;
  base::StopToken aborted_;
};

class ScriptedBackEnd final : public CollectiveBackEnd {
 public:
  absl::StatusOr<std::string> MakeId() override {
    if (!script.make_id.ok()) return script.make_id;
    return std::string("id");
  }
  absl::StatusOr<std::unique_ptr<Collective>> Join(const Seat& seat) override {
    EXPECT_EQ(seat.rank, 0);
    return std::make_unique<ScriptedCollective>(script);
  }
  Script script;  // of the next group
};

absl::Status UntilAborted(base::StopToken* aborted) {
  aborted->WaitUntil(absl::InfiniteFuture());
  return absl::AbortedError("aborted");
}

class CollectiveCommunicatorTest : public ::testing::Test {
 protected:
  void Make() {
    communicator_ = std::make_unique<CollectiveCommunicator>(CommunicatorOptions{
        .back_end = back_end_,
        .hooks = {.announce =
                      [this](uint64_t epoch, const std::string&, const auto&, absl::Time) {
                        absl::MutexLock lock(&mutex_);
                        announced_.push_back(epoch);
                        return announce_;
                      },
                  .end =
                      [this](uint64_t epoch) {
                        absl::MutexLock lock(&mutex_);
                        ended_.push_back(epoch);
                      },
                  .find = [this](uint64_t) { return version_; },
                  .progressed =
                      [this] {
                        absl::MutexLock lock(&mutex_);
                        ++progressed_;
                      }},
        .close_timeout = absl::Milliseconds(100)});
  }

  // Waits until the call in flight has come to something.
  CommProgress Await() {
    {
      absl::MutexLock lock(&mutex_);
      const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return progressed_ > 0; };
      EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&due), kPatience));
      progressed_ = 0;
    }
    return communicator_->Poll();
  }
  std::vector<uint64_t> ended() {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }

  const std::shared_ptr<ScriptedBackEnd> back_end_ = std::make_shared<ScriptedBackEnd>();
  std::shared_ptr<const WeightVersion> version_ = MakeTestVersion({.version = 7, .comm_epoch = 1});
  absl::Status announce_;
  absl::Mutex mutex_;
  std::vector<uint64_t> announced_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> ended_ ABSL_GUARDED_BY(mutex_);
  int progressed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<CollectiveCommunicator> communicator_;
};

TEST_F(CollectiveCommunicatorTest, FormsSendsAndEnds) {
  Make();
  EXPECT_EQ(communicator_->Poll().state, State::kIdle);
  communicator_->BeginForm(1, {"a", "b"});
  EXPECT_EQ(Await().state, State::kDone);
  EXPECT_EQ(communicator_->Poll().state, State::kIdle) << "told once";
  communicator_->BeginBroadcast(1, 7);
  EXPECT_EQ(Await().state, State::kDone);
  communicator_->BeginAbort(1);
  EXPECT_EQ(Await().state, State::kDone);
  EXPECT_THAT(ended(), ElementsAre(1u));
}

TEST_F(CollectiveCommunicatorTest, NamesTheMembersThatWereWaitedForInVain) {
  back_end_->script = {.form = [](auto*) { return absl::DeadlineExceededError("late"); },
                       .lost = {1, 3}};
  Make();
  communicator_->BeginForm(1, {"a", "b", "c"});
  const CommProgress progress = Await();
  EXPECT_EQ(progress.state, State::kRunning) << "who is lost comes before what failed";
  EXPECT_THAT(progress.lost, ElementsAre("a", "c"));
  EXPECT_EQ(communicator_->Poll().state, State::kFailed);
}

TEST_F(CollectiveCommunicatorTest, BlamesNobodyWhereTheIdOrTheAnnouncementFails) {
  back_end_->script.make_id = absl::UnavailableError("no memory");
  Make();
  communicator_->BeginForm(1, {"a"});
  CommProgress progress = Await();
  EXPECT_EQ(progress.state, State::kFailed);
  EXPECT_THAT(progress.error, HasSubstr("no memory"));
  back_end_->script = {};
  announce_ = absl::UnavailableError("the orchestrator restarts");
  communicator_->BeginForm(2, {"a"});
  progress = Await();
  EXPECT_EQ(progress.state, State::kFailed);
  EXPECT_THAT(progress.lost, IsEmpty());
}

TEST_F(CollectiveCommunicatorTest, DoesNotSendAVersionWhoseManifestNamesAnotherEpoch) {
  Make();
  communicator_->BeginForm(2, {"a"});
  Await();
  communicator_->BeginBroadcast(2, 7);
  const CommProgress progress = Await();
  EXPECT_EQ(progress.state, State::kFailed);
  EXPECT_THAT(progress.error, HasSubstr("names epoch 1"));
  version_ = nullptr;
  communicator_->BeginBroadcast(2, 7);
  EXPECT_EQ(Await().state, State::kFailed) << "not kept any more";
}

TEST_F(CollectiveCommunicatorTest, AnAbortInterruptsAFormingAndASend) {
  back_end_->script.form = &UntilAborted;
  Make();
  communicator_->BeginForm(1, {"a"});
  communicator_->BeginAbort(1);
  EXPECT_EQ(Await().state, State::kDone) << "of the abort; the forming is forgotten";
  back_end_->script = {.send = &UntilAborted};
  communicator_->BeginForm(2, {"a"});
  Await();
  version_ = MakeTestVersion({.version = 8, .comm_epoch = 2});
  communicator_->BeginBroadcast(2, 8);
  communicator_->BeginAbort(2);
  EXPECT_EQ(Await().state, State::kDone);
  EXPECT_THAT(ended(), ElementsAre(1u, 2u));
}

TEST_F(CollectiveCommunicatorTest, DestructionTellsOfTheEndOfTheEpochItHolds) {
  Make();
  communicator_->BeginForm(1, {"a"});
  Await();
  communicator_.reset();
  EXPECT_THAT(ended(), ElementsAre(1u)) << "members would wait for its next version";
}

TEST_F(CollectiveCommunicatorTest, DestructionAfterAnAbortTellsOfNothingAgain) {
  Make();
  communicator_->BeginForm(1, {"a"});
  Await();
  communicator_->BeginAbort(1);
  Await();
  communicator_.reset();
  EXPECT_THAT(ended(), ElementsAre(1u));
}

TEST_F(CollectiveCommunicatorTest, WhatAHookUsesIsNotTakenFromIt) {
  absl::Notification inside;
  absl::Notification go_on;
  bool came_back = false;
  CollectiveCommunicator communicator(
      {.back_end = back_end_,
       .hooks = {.announce =
                     [&](uint64_t, const std::string&, const auto&, absl::Time) {
                       inside.Notify();
                       go_on.WaitForNotification();
                       came_back = true;
                       return absl::OkStatus();
                     },
                 .end = [](uint64_t) {}}});
  communicator.BeginForm(1, {"a"});
  ASSERT_TRUE(inside.WaitForNotificationWithTimeout(kPatience));
  std::thread later([&] { go_on.Notify(); });
  communicator.Abandon(1);
  EXPECT_TRUE(came_back);
  later.join();
}

// Calls that heed no abort; the test lets them go at its end.
class HangingTest : public CollectiveCommunicatorTest {
 protected:
  void SetUp() override {
    back_end_->script.form = [hung = hung_, go_on = go_on_](auto*) {
      hung->Notify();
      go_on->WaitForNotification();
      return absl::OkStatus();
    };
    Make();
    communicator_->BeginForm(1, {"a"});
    ASSERT_TRUE(hung_->WaitForNotificationWithTimeout(kPatience));
  }
  void TearDown() override {
    if (!go_on_->HasBeenNotified()) go_on_->Notify();
  }
  const std::shared_ptr<absl::Notification> hung_ = std::make_shared<absl::Notification>();
  const std::shared_ptr<absl::Notification> go_on_ = std::make_shared<absl::Notification>();
};

TEST_F(HangingTest, AnAbandonedCallIsForgottenAndTheNextGroupForms) {
  communicator_->BeginAbort(1);
  EXPECT_EQ(communicator_->Poll().state, State::kRunning) << "the abort hangs, Poll does not";
  communicator_->Abandon(1);
  EXPECT_EQ(communicator_->Poll().state, State::kIdle);
  back_end_->script = {};
  communicator_->BeginForm(2, {"a"});
  EXPECT_EQ(Await().state, State::kDone);
  EXPECT_THAT(ended(), IsEmpty()) << "the abandoned thread calls no hook";
}

TEST_F(HangingTest, DestructionIsBounded) {
  const absl::Time begun = absl::Now();
  communicator_.reset();
  EXPECT_LT(absl::Now() - begun, absl::Seconds(10));
}

}  // namespace
}  // namespace temper::weights
