#include "rollout_worker/delivery_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper::rollout_worker {
namespace {

// Codes that say the request itself is wrong, so that no server will ever take it.
bool IsRefusal(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
         absl::IsResourceExhausted(status);
}

}  // namespace

DeliveryDecision AfterScoring(LeaseStanding standing, const absl::Status& status,
                              int failed_samples, int scorings) {
  if (standing != LeaseStanding::kHeld) {
    return {.move = NextMove::kDrop,
            .reason = absl::StrCat("the lease is ", LeaseStandingName(standing))};
  }
  if (IsRefusal(status)) {
    return {.move = NextMove::kFail,
            .ending = v1::ENDING_REWARD_FAILED,
            .reason = std::string(status.message())};
  }
  if (!status.ok()) return {.move = NextMove::kRetry, .reason = status.ToString()};
  if (failed_samples > 0 && scorings < kMaxScorings) {
    return {.move = NextMove::kRetry,
            .reason = absl::StrCat(failed_samples, " samples had no score in time")};
  }
  return {.move = NextMove::kDone, .reason = "scored"};
}

DeliveryDecision AfterSubmit(LeaseStanding standing, const absl::Status& status) {
  if (status.ok()) return {.move = NextMove::kDone, .reason = "answered"};
  if (standing != LeaseStanding::kHeld) {
    return {.move = NextMove::kDrop,
            .reason = absl::StrCat("the lease is ", LeaseStandingName(standing))};
  }
  if (IsRefusal(status)) {
    return {.move = NextMove::kFail,
            .ending = v1::ENDING_GENERATION_FAILED,
            .reason = std::string(status.message())};
  }
  return {.move = NextMove::kRetry, .reason = status.ToString()};
}

absl::Duration DeliveryBackoff(int tries) {
  absl::Duration wait = absl::Milliseconds(100);
  for (int i = 1; i < tries && wait < absl::Seconds(2); ++i) wait *= 2;
  return std::min(wait, absl::Seconds(2));
}

}  // namespace temper::rollout_worker
