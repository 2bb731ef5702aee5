#pragma once

// How attempts end. The numbers equal v1::Ending and stand in the ledger: never renumber.

#include <array>
#include <cstddef>
#include <cstdint>

namespace temper::orchestrator {

enum class Ending : uint8_t {
  kNone = 0,  // has not ended
  kTrained = 1,
  kDroppedZeroVariance = 2,
  kDroppedStale = 3,
  kRefused = 4,
  kGenerationFailed = 5,
  kRewardFailed = 6,
  kLeaseExpired = 7,
  kSuperseded = 8,
  kDrained = 9,
  kRewound = 10,
};
inline constexpr size_t kEndingCount = 11;  // kNone included

// "trained", "dropped_zero_variance", ...: the label of metrics, logs and summaries. "none" for
// kNone.
const char* EndingName(Ending ending);

// Every ending but kNone, in the order of their numbers.
const std::array<Ending, kEndingCount - 1>& AllEndings();

// The number of a message or a database row as an ending; kNone for a number that names none.
Ending EndingFromNumber(int64_t number);

// Whether it ends the attempt alone and the same group is leased again: failures of infrastructure
// (generation_failed, reward_failed, lease_expired, drained) and a submit that was refused.
bool GroupIsLeasedAgain(Ending ending);

}  // namespace temper::orchestrator
