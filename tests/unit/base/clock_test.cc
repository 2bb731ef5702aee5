#include "services/base/clock.h"

#include <gtest/gtest.h>

#include <stop_token>
#include <thread>
#include <vector>

#include "services/base/stop_token.h"
#include "tests/support/fake_clock.h"

namespace temper::base {
namespace {

using ::temper::testing::FakeClock;

TEST(ClockTest, SystemClockWaitEndsWithItsDeadline) {
  absl::Mutex mutex;
  bool never = false;
  absl::MutexLock lock(&mutex);
  EXPECT_FALSE(SystemClock()->AwaitUntil(&mutex, absl::Condition(&never),
                                         SystemClock()->Now() + absl::Milliseconds(1)));
}

TEST(FakeClockTest, MovesByHandOnly) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now(), start + absl::Seconds(3));
}

TEST(FakeClockTest, ManyWaitersWakeEachAtItsOwnDeadline) {
  FakeClock clock;
  StopToken stop;
  const absl::Time start = clock.Now();
  std::vector<absl::Time> woke(8);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      stop.WaitUntil(start + absl::Seconds(i + 1), &clock);
      woke[i] = clock.Now();
    });
  }
  for (int i = 0; i < 8; ++i) {
    clock.AwaitWaiters(8 - i);
    clock.Advance(absl::Seconds(1));
    threads[i].join();
  }
  for (int i = 0; i < 8; ++i) EXPECT_EQ(woke[i], start + absl::Seconds(i + 1));
}

TEST(FakeClockTest, ConditionEndsTheWaitWithoutTime) {
  FakeClock clock;
  StopToken stop;
  bool stopped = false;
  std::thread waiter([&] { stopped = stop.WaitUntil(absl::InfiniteFuture(), &clock); });
  clock.AwaitWaiters(1);
  stop.RequestStop();
  waiter.join();
  EXPECT_TRUE(stopped);
}

TEST(StopTokenTest, RunsWhatWasRegisteredOnceAndLateOnesAtOnce) {
  StopToken stop;
  int runs = 0;
  const std::stop_callback early(stop.OnStop(), [&] {
    EXPECT_TRUE(stop.StopRequested());
    ++runs;
  });
  stop.RequestStop();
  stop.RequestStop();
  EXPECT_EQ(runs, 1);
  const std::stop_callback late(stop.OnStop(), [&] { ++runs; });
  EXPECT_EQ(runs, 2);
}

}  // namespace
}  // namespace temper::base
