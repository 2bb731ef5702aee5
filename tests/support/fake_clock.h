#pragma once

// A clock that stands still until a test moves it.

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/clock.h"

namespace temper::testing {

// Thread-safe. Starts at 2027-01-15T08:00:00Z. Waits on it end as soon as it is moved past their
// deadline, or their condition becomes true; real time plays no part.
class FakeClock final : public base::Clock {
 public:
  FakeClock();
  ~FakeClock() override;

  absl::Time Now() override;
  bool AwaitUntil(absl::Mutex* mutex, const absl::Condition& condition,
                  absl::Time deadline) override ABSL_NO_THREAD_SAFETY_ANALYSIS;

  // Moves time forward (duration >= 0) and wakes every waiter whose deadline has passed.
  void Advance(absl::Duration duration);

  // Returns once `count` threads or more wait on this clock: then Advance meets them. Ends the test
  // program if that takes 30 s of real time.
  void AwaitWaiters(int count);

 private:
  struct Waiter;
  int64_t NowNanos() const { return now_nanos_.load(); }
  void EndWait(Waiter* waiter) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  std::atomic<int64_t> now_nanos_;
  absl::Mutex mutex_;
  std::vector<Waiter*> waiters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::testing
