#include "orchestrator/ledger_restore.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "orchestrator/ledger_store.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

// Why the ledger cannot be used: NotFound, DataLoss; OK if it can; other errors say nothing of it.
absl::Status Examine(const std::string& ledger) {
  if (!base::PathExists(ledger)) return absl::NotFoundError(absl::StrCat("there is no ", ledger));
  TEMPER_ASSIGN_OR_RETURN(const std::unique_ptr<LedgerStore> store, LedgerStore::Open(ledger));
  TEMPER_RETURN_IF_ERROR(store->CheckIntegrity());
  TEMPER_ASSIGN_OR_RETURN(const std::string run_id, store->Fact("run_id"));
  return run_id.empty() ? absl::NotFoundError(absl::StrCat(ledger, " holds no run"))
                        : absl::OkStatus();
}

// Renames what is there of the database's files; SQLite would play a log that is left back into the
// copy.
absl::StatusOr<std::string> MoveLedgerAside(const std::string& ledger, const std::string& time) {
  const std::string aside = absl::StrCat(ledger, ".corrupt-", time);
  std::string moved;
  for (const char* part : {"-wal", "-shm", ""}) {
    if (!base::PathExists(ledger + part)) continue;
    TEMPER_RETURN_IF_ERROR(base::RenameDurably(ledger + part, aside + part));
    moved = aside;
  }
  return moved;
}

// Its lines are those of a ledger that is gone; the copy's are exported anew.
absl::Status MoveMetricsAside(const std::string& run_dir, const std::string& time) {
  const std::string metrics = run_dir + "/metrics.jsonl";
  if (!base::PathExists(metrics)) return absl::OkStatus();
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(run_dir + "/rewound"));
  return base::RenameDurably(
      metrics, absl::StrCat(run_dir, "/rewound/metrics.lost_ledger-", time, ".jsonl"));
}

// The largest timeline that events.jsonl tells of; 0 if none. Lines that are no events are passed
// over: the process that wrote them may have been killed.
uint64_t LastTimelineTold(const std::string& run_dir) {
  uint64_t last = 0;
  std::ifstream events(run_dir + "/events.jsonl");
  for (std::string line; std::getline(events, line);) {
    if (line.find("\"timeline_begun\"") == std::string::npos) continue;
    const nlohmann::json event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!event.is_object() || !event.contains("timeline")) continue;
    if (event["timeline"].is_number_unsigned()) {
      last = std::max(last, event["timeline"].get<uint64_t>());
    }
  }
  return last;
}

absl::Status CopyFile(const std::string& from, const std::string& to) {
  constexpr size_t kPartBytes = 1 << 20;
  TEMPER_ASSIGN_OR_RETURN(const auto writer, base::AtomicFileWriter::Create(to));
  std::ifstream source(from, std::ios::binary);
  std::string part(kPartBytes, '\0');
  while (source.read(part.data(), kPartBytes) || source.gcount() > 0) {
    TEMPER_RETURN_IF_ERROR(writer->Append({part.data(), static_cast<size_t>(source.gcount())}));
  }
  if (!source.eof()) return absl::UnavailableError(absl::StrCat("cannot read ", from));
  return writer->Commit();
}

// Leaves no log beside the file: the connection that is closed is its only one.
absl::Status RaiseTimelineFloor(const std::string& ledger, uint64_t timeline) {
  TEMPER_ASSIGN_OR_RETURN(const auto store, LedgerStore::Open(ledger));
  return store->PutNumber("timeline_floor", timeline);
}

}  // namespace

absl::StatusOr<std::optional<LedgerRestored>> RestoreLedgerIfLost(
    const LedgerRestoreOptions& options) {
  const absl::Status lost = Examine(options.ledger);
  if (lost.ok()) return std::nullopt;
  if (!absl::IsNotFound(lost) && !absl::IsDataLoss(lost)) return lost;
  const std::string time = absl::FormatTime("%Y%m%d-%H%M%S", options.now, absl::UTCTimeZone());
  LedgerRestored restored{.reason = std::string(lost.message()), .moved_aside = ""};
  const std::string next = options.ledger + ".restoring";
  TEMPER_RETURN_IF_ERROR(CopyFile(options.copy, next));
  if (const absl::Status whole = Examine(next); !whole.ok()) {
    base::RemoveAll(next).IgnoreError();  // the next try writes it anew
    return absl::DataLossError(
        absl::StrCat("the copy of the ledger ", options.copy, ": ", whole.message()));
  }
  TEMPER_RETURN_IF_ERROR(RaiseTimelineFloor(next, LastTimelineTold(options.run_dir)));
  TEMPER_ASSIGN_OR_RETURN(restored.moved_aside, MoveLedgerAside(options.ledger, time));
  TEMPER_RETURN_IF_ERROR(MoveMetricsAside(options.run_dir, time));
  // Last: a process that is killed before finds the ledger lost again.
  TEMPER_RETURN_IF_ERROR(base::RenameDurably(next, options.ledger));
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(next + ".lock"));
  return restored;
}

}  // namespace temper::orchestrator
