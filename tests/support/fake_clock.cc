#include "tests/support/fake_clock.h"

#include <algorithm>

#include "services/base/check.h"

namespace temper::testing {

// One thread inside AwaitUntil; lives on its stack.
struct FakeClock::Waiter {
  absl::Mutex* mutex;  // the caller's
  const absl::Condition* condition;
  const FakeClock* clock;
  int64_t deadline_nanos;
  int pokes = 0;  // Advance calls that are about to lock `mutex`; guarded by the clock's mutex

  bool Over() const { return condition->Eval() || clock->NowNanos() >= deadline_nanos; }
  bool Unpoked() const { return pokes == 0; }
};

FakeClock::FakeClock() : now_nanos_(1'800'000'000'000'000'000) {}

FakeClock::~FakeClock() {
  absl::MutexLock lock(&mutex_);
  TEMPER_CHECK(waiters_.empty(), "a clock outlives those who wait on it");
}

absl::Time FakeClock::Now() { return absl::FromUnixNanos(NowNanos()); }

bool FakeClock::AwaitUntil(absl::Mutex* mutex, const absl::Condition& condition,
                           absl::Time deadline) {
  const int64_t deadline_nanos = deadline == absl::InfiniteFuture() ? INT64_MAX
                                 : deadline == absl::InfinitePast() ? INT64_MIN
                                                                    : absl::ToUnixNanos(deadline);
  Waiter waiter{mutex, &condition, this, deadline_nanos};
  while (!waiter.Over()) {
    {
      absl::MutexLock lock(&mutex_);
      waiters_.push_back(&waiter);
    }
    mutex->Await(absl::Condition(&waiter, &Waiter::Over));
    EndWait(&waiter);
  }
  return condition.Eval();
}

void FakeClock::EndWait(Waiter* waiter) {
  mutex_.Lock();
  std::erase(waiters_, waiter);
  const bool poked = waiter->pokes > 0;
  mutex_.Unlock();
  if (!poked) return;
  // An Advance wants the caller's mutex, which must not go away before that has happened.
  waiter->mutex->Unlock();
  mutex_.LockWhen(absl::Condition(waiter, &Waiter::Unpoked));
  mutex_.Unlock();
  waiter->mutex->Lock();
}

void FakeClock::Advance(absl::Duration duration) {
  TEMPER_CHECK(duration >= absl::ZeroDuration(), "time moves forward");
  now_nanos_ += absl::ToInt64Nanoseconds(duration);
  std::vector<Waiter*> waiters;
  {
    absl::MutexLock lock(&mutex_);
    waiters = waiters_;
    for (Waiter* waiter : waiters) ++waiter->pokes;
  }
  for (Waiter* waiter : waiters) {
    waiter->mutex->Lock();  // releasing it makes Await look at its condition again
    waiter->mutex->Unlock();
    absl::MutexLock lock(&mutex_);
    --waiter->pokes;
  }
}

void FakeClock::AwaitWaiters(int count) {
  const auto enough = [this, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return static_cast<int>(waiters_.size()) >= count;
  };
  absl::MutexLock lock(&mutex_);
  const bool arrived = mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(30));
  TEMPER_CHECK(arrived, "the threads a test waits for never waited on its clock");
}

}  // namespace temper::testing
