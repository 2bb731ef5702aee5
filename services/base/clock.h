#pragma once

// Time as an argument. Production code takes a Clock*; tests pass one they move by hand
// (tests/support/fake_clock.h).

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace temper::base {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // The wall clock, for records and leases.
  virtual absl::Time Now() = 0;

  // Waits, with `mutex` held as for absl::Mutex::Await, until `condition` holds or `deadline` has
  // passed. Returns whether the condition holds. Never waits past the deadline.
  virtual bool AwaitUntil(absl::Mutex* mutex, const absl::Condition& condition, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) = 0;
};

// The system's clock; lives for the whole program, owned by nobody.
Clock* SystemClock();

}  // namespace temper::base
