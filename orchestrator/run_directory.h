#pragma once

// What a run directory holds of the orchestrator's: the ledger, and orchestrator.json, by which a
// restart finds its ports and everybody else finds the orchestrator.

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

// Thread-compatible. Owns the ledger's store for the life of the process.
class RunDirectory final {
 public:
  // state_dir: where ledger.db is; created if missing. The first time, records run_id and
  // configuration in the ledger.
  // Returns: InvalidArgument (a ledger is there and `resume` is false; the configuration differs
  // from the one the run began with, with the differences), FailedPrecondition (network file
  // system, another orchestrator at work), what the store returns.
  static absl::StatusOr<std::unique_ptr<RunDirectory>> Open(const std::string& run_dir,
                                                            const v1::RunConfig& config,
                                                            bool resume);
  const std::string& run_dir() const { return run_dir_; }
  const std::string& run_id() const { return run_id_; }
  LedgerStore* store() { return store_.get(); }

 private:
  RunDirectory(std::string run_dir, std::unique_ptr<LedgerStore> store)
      : run_dir_(std::move(run_dir)), store_(std::move(store)) {}
  absl::Status Begin(const v1::RunConfig& config);
  absl::Status CompareConfig(const v1::RunConfig& config);

  const std::string run_dir_;
  const std::unique_ptr<LedgerStore> store_;
  std::string run_id_;
};

}  // namespace temper::orchestrator
