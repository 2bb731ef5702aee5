#include "services/base/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "tests/support/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace temper::base {
namespace {

using ::temper::testing::FakeClock;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

TEST(BoundedQueueTest, HandsOutInOrder) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) ASSERT_THAT(queue.Push(int{i}, absl::InfinitePast()), IsOk());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.Pop(absl::InfinitePast()).value(), i);
}

TEST(BoundedQueueTest, RefusesAtTheBoundAndLeavesTheValueAlone) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  ASSERT_THAT(queue.Push(std::make_unique<int>(1), absl::InfinitePast()), IsOk());
  auto second = std::make_unique<int>(2);
  EXPECT_THAT(queue.Push(std::move(second), absl::InfinitePast()),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_NE(second, nullptr);
}

TEST(BoundedQueueTest, PopGivesUpAtItsDeadline) {
  FakeClock clock;
  BoundedQueue<int> queue(1, &clock);
  absl::StatusOr<int> got;
  std::thread consumer([&] { got = queue.Pop(clock.Now() + absl::Seconds(5)); });
  clock.AwaitWaiters(1);
  clock.Advance(absl::Seconds(5));
  consumer.join();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST(BoundedQueueTest, PushWaitsForRoom) {
  FakeClock clock;
  BoundedQueue<int> queue(1, &clock);
  ASSERT_THAT(queue.Push(1, absl::InfinitePast()), IsOk());
  absl::Status pushed;
  std::thread producer([&] { pushed = queue.Push(2, clock.Now() + absl::Seconds(5)); });
  clock.AwaitWaiters(1);
  EXPECT_EQ(queue.Pop(absl::InfinitePast()).value(), 1);
  producer.join();
  EXPECT_THAT(pushed, IsOk());
  EXPECT_EQ(queue.Pop(absl::InfinitePast()).value(), 2);
}

TEST(BoundedQueueTest, CloseWakesWaitersAndHandsOutWhatIsLeft) {
  FakeClock clock;
  BoundedQueue<int> queue(1, &clock);
  absl::StatusOr<int> got;
  std::thread consumer([&] { got = queue.Pop(absl::InfiniteFuture()); });
  clock.AwaitWaiters(1);
  queue.Close();
  consumer.join();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kCancelled));

  BoundedQueue<int> filled(1);
  ASSERT_THAT(filled.Push(7, absl::InfinitePast()), IsOk());
  filled.Close();
  EXPECT_THAT(filled.Push(8, absl::InfiniteFuture()), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(filled.Pop(absl::InfiniteFuture()).value(), 7);
  EXPECT_THAT(filled.Pop(absl::InfiniteFuture()), StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace temper::base
