#pragma once

// What a run directory holds of the orchestrator's: the ledger, and orchestrator.json, by which a
// restart finds its ports and everybody else finds the orchestrator.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "orchestrator/ledger_restore.h"
#include "orchestrator/ledger_store.h"
#include "temper/v1/config.pb.h"

namespace temper::orchestrator {

// orchestrator.json.
struct Recorded {
  std::string address;          // host:port
  std::string metrics_address;  // host:port
  int64_t pid = 0;
  std::string run_id;
};
absl::Status WriteRecorded(const std::string& run_dir, const Recorded& recorded);
// NotFound: there is none. DataLoss: it is no such file.
absl::StatusOr<Recorded> ReadRecorded(const std::string& run_dir);

// Who starts an orchestrator in a run directory, and what for.
enum class StartKind {
  kNew,        // a person, a new run: there must be no ledger
  kResumed,    // a person, to go on: also with a run that was stopped or had failed
  kRestarted,  // the supervisor, because the process before died: what has ended stays ended
};

struct RunDirectoryOptions {
  std::string run_dir;
  v1::RunConfig config;
  StartKind start = StartKind::kNew;
  // With kResumed: a checkpoint's copy of the ledger, taken where the ledger is lost; empty: none.
  std::string ledger_copy;
};

// Thread-compatible. Owns the ledger's store for the life of the process.
class RunDirectory final {
 public:
  // ledger.db lies in the configuration's state_dir, which is created if missing. The first time,
  // records run_id and configuration in it.
  // Returns: DataLoss (kRestarted, and the ledger of the run that orchestrator.json names is gone;
  // nothing is begun in its place), InvalidArgument (a ledger is there and the start is kNew; the
  // configuration differs from the one the run began with, with the differences),
  // FailedPrecondition (network file system, another orchestrator at work), what the store and
  // RestoreLedgerIfLost return.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Open(const RunDirectoryOptions& options);
  const std::string& run_dir() const { return run_dir_; }
  const std::string& run_id() const { return run_id_; }
  LedgerStore* store() { return store_.get(); }
  const std::string& ledger_path() const { return ledger_path_; }
  // Set if the ledger was lost and has been restored.
  const std::optional<LedgerRestored>& restored() const { return restored_; }

 private:
  RunDirectory(std::string run_dir, std::string ledger_path, std::unique_ptr<LedgerStore> store)
      : run_dir_(std::move(run_dir)),
        ledger_path_(std::move(ledger_path)),
        store_(std::move(store)) {}
  absl::Status Begin(const v1::RunConfig& config);
  absl::Status CompareConfig(const v1::RunConfig& config);

  const std::string run_dir_;
  const std::string ledger_path_;
  const std::unique_ptr<LedgerStore> store_;
  std::string run_id_;
  std::optional<LedgerRestored> restored_;
};

}  // namespace temper::orchestrator
