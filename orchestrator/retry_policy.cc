#include "orchestrator/retry_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {

absl::Time RenewedUntil(absl::Time armed_at, absl::Time now, absl::Duration duration) {
  return std::min(now + duration, armed_at + kLongestLease * duration);
}

std::string ExpiryReason(absl::Time armed_at, absl::Time now, absl::Duration duration) {
  if (now - armed_at < kLongestLease * duration) return "the lease was not renewed";
  return absl::StrCat("held for ", absl::FormatDuration(now - armed_at), ", ", kLongestLease,
                      " times the lease");
}

RetryDecision DecideRetry(const RetryOptions& options, Ending ending, uint32_t attempts_made) {
  if (!GroupIsLeasedAgain(ending)) {
    return {RetryAction::kEndGroup, absl::ZeroDuration(), std::string(EndingName(ending))};
  }
  if (attempts_made >= options.max_attempts) {
    return {RetryAction::kStopRun, absl::ZeroDuration(),
            absl::StrCat("attempt ", attempts_made, " of ", options.max_attempts, " ended ",
                         EndingName(ending))};
  }
  if (ending == Ending::kDrained) {
    return {RetryAction::kLeaseAgain, absl::ZeroDuration(), "handed back"};
  }
  absl::Duration wait = options.first_backoff;
  for (uint32_t i = 1; i < attempts_made && wait < options.max_backoff; ++i) wait *= 2;
  wait = std::min(wait, options.max_backoff);
  return {RetryAction::kLeaseAgain, wait,
          absl::StrCat(EndingName(ending), ", again in ", absl::FormatDuration(wait))};
}

}  // namespace temper::orchestrator
