#include "orchestrator/ending.h"

namespace temper::orchestrator {

const char* EndingName(Ending ending) {
  switch (ending) {
    case Ending::kNone:
      return "none";
    case Ending::kTrained:
      return "trained";
    case Ending::kDroppedZeroVariance:
      return "dropped_zero_variance";
    case Ending::kDroppedStale:
      return "dropped_stale";
    case Ending::kRefused:
      return "refused";
    case Ending::kGenerationFailed:
      return "generation_failed";
    case Ending::kRewardFailed:
      return "reward_failed";
    case Ending::kLeaseExpired:
      return "lease_expired";
    case Ending::kSuperseded:
      return "superseded";
    case Ending::kDrained:
      return "drained";
    case Ending::kRewound:
      return "rewound";
  }
  return "none";
}

const std::array<Ending, kEndingCount - 1>& AllEndings() {
  static constexpr std::array<Ending, kEndingCount - 1> kAll = {
      Ending::kTrained,      Ending::kDroppedZeroVariance, Ending::kDroppedStale,
      Ending::kRefused,      Ending::kGenerationFailed,    Ending::kRewardFailed,
      Ending::kLeaseExpired, Ending::kSuperseded,          Ending::kDrained,
      Ending::kRewound};
  return kAll;
}

Ending EndingFromNumber(int64_t number) {
  if (number < 0 || number >= static_cast<int64_t>(kEndingCount)) return Ending::kNone;
  return static_cast<Ending>(number);
}

bool GroupIsLeasedAgain(Ending ending) {
  switch (ending) {
    case Ending::kRefused:
    case Ending::kGenerationFailed:
    case Ending::kRewardFailed:
    case Ending::kLeaseExpired:
    case Ending::kDrained:
      return true;
    default:
      return false;
  }
}

}  // namespace temper::orchestrator
