#pragma once

// The folder of one run, and who leads it.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/rpc/tls.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// Leadership of a run directory: one `temper` at a time, or two learners would write the same
// checkpoints. An advisory lock on RUN/temper.lock, which kill -9 releases.
class RunLock final {
 public:
  // Makes the folder if needed. FailedPrecondition, naming the process, if another leads it.
  static absl::StatusOr<std::unique_ptr<RunLock>> Take(const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  const int descriptor_;
};

// Makes the folder of a new run, or opens that of one to be resumed, and writes config.yaml (the
// recipe as it was given, with the overrides as comments) and resolved.yaml. The run is led as long
// as the lock lives.
// resume: FailedPrecondition-like InvalidArgument naming each difference if `config` would give
// other results than the run began with. Not resume: InvalidArgument if a run lies there already.
// NotFound: nothing to resume. What RunLock::Take returns; nothing is written then.
absl::StatusOr<std::unique_ptr<RunLock>> PrepareRunDirectory(
    const v1::RunConfig& config, const std::string& recipe,
    const std::vector<std::string>& overrides, bool resume);

// The copy of the ledger in the checkpoint that the run will resume from, for an orchestrator whose
// ledger is lost; empty if there is no checkpoint, or none in it.
// FailedPrecondition: the ledger is gone and the checkpoint holds no copy. Else the errors of
// learner::FindLatestCheckpoint; not for use while the run goes on.
absl::StatusOr<std::string> LedgerCopyToResume(const v1::RunConfig& config);

// A folder under `runs/` that does not exist yet: runs/<name of the recipe>-<UTC time>.
std::string FreshRunDirectory(const std::string& recipe);

// Writes RUN/prometheus.yml: one http_sd job that asks the orchestrator at `metrics_address`.
absl::Status WritePrometheusConfig(const std::string& run_dir, const std::string& metrics_address);

// What RUN/orchestrator.json says.
struct OrchestratorRecord {
  std::string address;
  std::string metrics_address;
  std::string run_id;
  rpc::TlsOptions tls;  // what the run was started with, from RUN/resolved.yaml
};
// NotFound if no orchestrator has led a run there.
absl::StatusOr<OrchestratorRecord> ReadOrchestratorRecord(const std::string& run_dir);

// The TLS files of a configuration; all empty: none.
rpc::TlsOptions TlsOf(const v1::NetworkConfig& network);

}  // namespace temper::cli
