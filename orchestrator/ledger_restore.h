#pragma once

// A ledger that is lost, made anew from the copy that a checkpoint holds.

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace temper::orchestrator {

struct LedgerRestoreOptions {
  std::string ledger;   // where ledger.db should be; its folder is there
  std::string copy;     // state/ledger.db of the newest whole checkpoint
  std::string run_dir;  // with events.jsonl and metrics.jsonl of the run
  absl::Time now;       // names what is moved aside
};

// What was done, for the log.
struct LedgerRestored {
  std::string reason;       // why the ledger that was there could not be used
  std::string moved_aside;  // where it is now; empty: there was none
};

// Looks at the ledger, and if it is missing, holds no run, or is what SQLite calls corrupt, moves
// what is there aside (ledger.db.corrupt-<time>; metrics.jsonl to rewound/) and puts the copy in
// its place. nullopt: the ledger is whole, nothing was done.
// The copy knows only the timelines that had begun when it was made; the numbers of those that
// events.jsonl tells of besides are never given again ("timeline_floor" in the ledger).
// Errors: DataLoss if the copy is no whole ledger; those of services/base/files.h and SqlDatabase.
absl::StatusOr<std::optional<LedgerRestored>> RestoreLedgerIfLost(
    const LedgerRestoreOptions& options);

}  // namespace temper::orchestrator
