#include "orchestrator/retry_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {

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
