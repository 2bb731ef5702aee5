#pragma once

// A flag that is raised once, and can be waited for.

#include <stop_token>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/clock.h"

namespace temper::base {

// Thread-safe. Outlives every thread that waits on it; the owner calls RequestStop and then joins.
class StopToken {
 public:
  // Raises the flag, wakes every waiter and runs what OnStop registered, on this thread. Later
  // calls do nothing.
  void RequestStop() {
    {
      absl::MutexLock lock(&mutex_);
      stopped_ = true;
    }
    source_.request_stop();
  }
  bool StopRequested() const {
    absl::MutexLock lock(&mutex_);
    return stopped_;
  }
  // Waits at most until `deadline`. Returns whether a stop was requested.
  bool WaitUntil(absl::Time deadline, Clock* clock = SystemClock()) {
    absl::MutexLock lock(&mutex_);
    return clock->AwaitUntil(&mutex_, absl::Condition(&stopped_), deadline);
  }
  bool WaitFor(absl::Duration duration, Clock* clock = SystemClock()) {
    return WaitUntil(clock->Now() + duration, clock);
  }

  // For std::stop_callback, which interrupts a wait that is not on a condition of ours (a socket,
  // an RPC in flight): the callback runs once, at RequestStop or at once if that has happened, and
  // holds no lock of this class.
  std::stop_token OnStop() const { return source_.get_token(); }

 private:
  mutable absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::stop_source source_;
};

}  // namespace temper::base
