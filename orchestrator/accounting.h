#pragma once

// The law of the ledger: attempts leased = sum of endings + leased now + admitted and not yet
// committed. It holds after every operation, over all timelines.

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "orchestrator/ending.h"

namespace temper::orchestrator {

// Counts of attempts. `attempts_leased` is counted on its own, when a lease is given; the others
// follow each attempt from state to state.
struct Accounting {
  uint64_t attempts_leased = 0;
  uint64_t leased = 0;                         // leased now
  uint64_t admitted = 0;                       // admitted, not yet committed
  std::array<uint64_t, kEndingCount> ended{};  // by Ending; [kNone] stays 0

  uint64_t& Ended(Ending ending) { return ended[static_cast<size_t>(ending)]; }
  uint64_t Ended(Ending ending) const { return ended[static_cast<size_t>(ending)]; }
  friend bool operator==(const Accounting&, const Accounting&) = default;
};

// Internal with all terms if the law is broken. Pure.
absl::Status CheckAccounting(const Accounting& accounting);

}  // namespace temper::orchestrator
