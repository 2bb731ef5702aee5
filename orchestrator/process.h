#pragma once

// The orchestrator as a process: opens the run directory, serves, ticks, and ends with the run.

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "orchestrator/coordinator.h"
#include "orchestrator/ledger_snapshots.h"
#include "orchestrator/orchestrator_service.h"
#include "orchestrator/run_directory.h"
#include "orchestrator/work_waiters.h"
#include "services/base/stop_token.h"
#include "services/metrics/http_endpoint.h"
#include "services/rpc/server.h"

namespace temper::orchestrator {

struct ProcessOptions {
  std::string config_file;  // resolved.yaml
  std::string run_dir;      // empty: the configuration's
  StartKind start = StartKind::kNew;
  std::string ledger_copy;                     // see RunDirectoryOptions
  std::string listen = "127.0.0.1:0";          // host:port; port 0: the recorded one of a resumed
  std::string metrics_listen = "127.0.0.1:0";  // run, else any
  bool insecure_network = false;
  rpc::TlsOptions tls;
};

// Owns everything the orchestrator is made of. Serves from Create on; Run ends it.
class OrchestratorProcess final {
 public:
  // Returns: InvalidArgument (configuration, a run directory that is in use by a new run or belongs
  // to another configuration), what the parts return.
  static absl::StatusOr<std::unique_ptr<OrchestratorProcess>> Create(const ProcessOptions& options);
  ~OrchestratorProcess();

  const std::string& address() const { return server_->address(); }
  const std::string& metrics_address() const { return endpoint_->address(); }

  // Ticks until the run has ended and every member is gone, or `stop` is raised (where the run is
  // over, up to 5 s longer, for members that have not heard of it); then drains and closes.
  // Returns: OK; Aborted with the reason if the run failed.
  absl::Status Run(base::StopToken* stop);

 private:
  OrchestratorProcess() = default;
  absl::Status Open(const ProcessOptions& options);
  absl::Status Serve(const ProcessOptions& options);
  std::string DiscoveryJson();
  void WriteSummaryIfDue();

  // In the order in which they are built; they go in the reverse one.
  std::unique_ptr<metrics::MetricsRegistry> registry_;
  std::unique_ptr<rpc::RpcMetrics> rpc_metrics_;
  std::unique_ptr<OrchestratorMetrics> metrics_;
  std::unique_ptr<RunDirectory> directory_;
  std::unique_ptr<RunFiles> files_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<WorkWaiters> waiters_;
  std::unique_ptr<LedgerSnapshots> snapshots_;
  std::unique_ptr<OrchestratorService> service_;
  std::unique_ptr<rpc::RpcServer> server_;
  std::unique_ptr<metrics::HttpEndpoint> endpoint_;

  absl::Mutex mutex_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;  // wakes Run
};

}  // namespace temper::orchestrator
