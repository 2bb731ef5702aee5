#pragma once

// How long a lease may be renewed, and what becomes of a group (or an evaluation item) whose
// attempt failed. Pure.

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "orchestrator/ending.h"

namespace temper::orchestrator {

// A lease is held for at most so many times its duration, however often it is renewed: a worker
// whose engine hangs still beats, and would hold its groups and the evaluation barrier for ever.
inline constexpr int kLongestLease = 20;

// When a lease of `duration` that was given (or found at a start) at `armed_at` ends if it is
// renewed now.
absl::Time RenewedUntil(absl::Time armed_at, absl::Time now, absl::Duration duration);

// Why such a lease has ended at `now`.
std::string ExpiryReason(absl::Time armed_at, absl::Time now, absl::Duration duration);

struct RetryOptions {
  uint32_t max_attempts = 5;  // leases of one group; >= 1
  absl::Duration first_backoff = absl::Seconds(1);
  absl::Duration max_backoff = absl::Seconds(30);
};

enum class RetryAction {
  kEndGroup,    // the attempt's ending is the group's
  kLeaseAgain,  // pending, not before `wait` has passed
  kStopRun,     // out of attempts: the run fails, naming the group
};

struct RetryDecision {
  RetryAction action;
  absl::Duration wait;
  std::string reason;
};

// attempts_made: leases of the group so far in this timeline, the one that just ended included.
// Waits double from first_backoff: 1, 2, 4, ... times it, at most max_backoff; a lease handed back
// (drained) is free at once, because its group did nothing wrong.
RetryDecision DecideRetry(const RetryOptions& options, Ending ending, uint32_t attempts_made);

}  // namespace temper::orchestrator
