#include "orchestrator/process.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/service_discovery.h"
#include "services/base/address.h"
#include "services/base/files.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::orchestrator {
namespace {

constexpr absl::Duration kDrain = absl::Seconds(2);
constexpr absl::Duration kShortestSleep = absl::Milliseconds(20);
// Members hear of the run's end with their next heartbeat. Who launched us may not know of all, so
// asks us to stop when its own have left; the others would wait for us, for minutes.
constexpr absl::Duration kLastWord = absl::Seconds(5);

// `listen` with the recorded port where it asks for any.
absl::StatusOr<base::HostPort> ListenAt(const std::string& listen, const std::string& recorded) {
  TEMPER_ASSIGN_OR_RETURN(base::HostPort wanted, base::ParseHostPort(listen));
  if (wanted.port == 0 && !recorded.empty()) {
    TEMPER_ASSIGN_OR_RETURN(const base::HostPort before, base::ParseHostPort(recorded));
    wanted.port = before.port;
  }
  return wanted;
}

}  // namespace

OrchestratorProcess::~OrchestratorProcess() = default;

absl::StatusOr<std::unique_ptr<OrchestratorProcess>> OrchestratorProcess::Create(
    const ProcessOptions& options) {
  std::unique_ptr<OrchestratorProcess> process(new OrchestratorProcess());
  TEMPER_RETURN_IF_ERROR(process->Open(options));
  TEMPER_RETURN_IF_ERROR(process->Serve(options));
  return process;
}

absl::Status OrchestratorProcess::Open(const ProcessOptions& options) {
  if (options.config_file.empty()) {
    return absl::InvalidArgumentError("--config is needed: the run's resolved.yaml");
  }
  TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig config,
                          config::LoadResolvedConfig(options.config_file));
  const std::string run_dir = options.run_dir.empty() ? config.run_dir() : options.run_dir;
  TEMPER_ASSIGN_OR_RETURN(RunPlan plan, MakeRunPlan(config));
  TEMPER_ASSIGN_OR_RETURN(directory_, RunDirectory::Open({.run_dir = run_dir,
                                                          .config = config,
                                                          .start = options.start,
                                                          .ledger_copy = options.ledger_copy}));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<CommitRow> commits, directory_->store()->Commits());
  std::vector<std::string> lines;
  for (const CommitRow& commit : commits) lines.push_back(commit.metrics_json);
  registry_ = std::make_unique<metrics::MetricsRegistry>();
  rpc_metrics_ = std::make_unique<rpc::RpcMetrics>(registry_.get());
  metrics_ = std::make_unique<OrchestratorMetrics>(registry_.get());
  files_ = std::make_unique<RunFiles>(run_dir, std::move(lines), base::SystemClock());
  if (const auto& restored = directory_->restored(); restored.has_value()) {
    files_->Event("ledger_restored", {{"reason", restored->reason},
                                      {"moved_aside", restored->moved_aside},
                                      {"from", options.ledger_copy}});
  }
  CoordinatorOptions coordinator;
  coordinator.plan = std::move(plan);
  coordinator.run_id = directory_->run_id();
  coordinator.store = directory_->store();
  coordinator.files = files_.get();
  coordinator.metrics = metrics_.get();
  coordinator.go_on = options.start == StartKind::kResumed;
  TEMPER_ASSIGN_OR_RETURN(coordinator_, Coordinator::Create(std::move(coordinator)));
  return coordinator_->VerifyAccounting();
}

absl::Status OrchestratorProcess::Serve(const ProcessOptions& options) {
  Recorded before;
  if (absl::StatusOr<Recorded> recorded = ReadRecorded(directory_->run_dir()); recorded.ok()) {
    before = *std::move(recorded);
  }
  waiters_ =
      std::make_unique<WorkWaiters>(coordinator_.get(), rpc_metrics_.get(), base::SystemClock());
  snapshots_ = std::make_unique<LedgerSnapshots>(directory_->ledger_path());
  service_ = std::make_unique<OrchestratorService>(coordinator_.get(), waiters_.get(),
                                                   snapshots_.get(), rpc_metrics_.get(), [this] {
                                                     absl::MutexLock lock(&mutex_);
                                                     changed_ = true;
                                                   });
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort listen, ListenAt(options.listen, before.address));
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort metrics_listen,
                          ListenAt(options.metrics_listen, before.metrics_address));
  metrics::HttpEndpointOptions http;
  http.host = metrics_listen.host;
  http.port = metrics_listen.port;
  http.insecure_network = options.insecure_network;
  http.registry = registry_.get();
  http.handlers["/sd"] = [this] {
    return metrics::HttpResponse{200, "application/json", DiscoveryJson()};
  };
  TEMPER_ASSIGN_OR_RETURN(endpoint_, metrics::HttpEndpoint::Create(std::move(http)));
  rpc::ServerOptions server;
  server.listen_address = base::JoinHostPort(listen.host, listen.port);
  server.services = {service_.get()};
  server.tls = options.tls;
  server.insecure_network = options.insecure_network;
  TEMPER_ASSIGN_OR_RETURN(server_, rpc::RpcServer::Create(server));
  files_->Event(before.run_id.empty() ? "start" : "restart",
                {{"run_id", directory_->run_id()},
                 {"address", address()},
                 {"metrics_address", metrics_address()},
                 {"pid", static_cast<int64_t>(getpid())}});
  return WriteRecorded(directory_->run_dir(),
                       {address(), metrics_address(), getpid(), directory_->run_id()});
}

std::string OrchestratorProcess::DiscoveryJson() {
  std::vector<v1::Peer> live = coordinator_->LiveMembers();
  v1::Peer self;
  self.set_role(v1::ROLE_ORCHESTRATOR);
  self.set_member_id("orchestrator");
  self.set_metrics_address(metrics_address());
  live.insert(live.begin(), self);
  return ServiceDiscoveryJson(live);
}

void OrchestratorProcess::WriteSummaryIfDue() {
  absl::StatusOr<std::optional<SummaryInputs>> due = coordinator_->SummaryDue();
  absl::Status status = due.status();
  if (status.ok()) {
    if (!due->has_value()) return;
    absl::StatusOr<std::string> json = SummaryJson(**due);
    status = json.status();
    if (status.ok()) {
      status =
          base::WriteFileAtomically(absl::StrCat(directory_->run_dir(), "/summary.json"), *json);
    }
    if (status.ok()) status = coordinator_->SummaryWritten(*json);
  }
  // Tried again at the next tick: a full disk may have room by then.
  if (!status.ok()) base::LogWarning("summary_not_written", {{"status", status.ToString()}});
}

absl::Status OrchestratorProcess::Run(base::StopToken* stop) {
  std::stop_callback wake(stop->OnStop(), [this] {
    absl::MutexLock lock(&mutex_);
    changed_ = true;
  });
  absl::Time stay_until = absl::InfiniteFuture();
  while (!coordinator_->MayExit()) {
    if (stop->StopRequested()) {
      stay_until = std::min(stay_until, base::SystemClock()->Now() + kLastWord);
      if (coordinator_->NobodyWaits() || base::SystemClock()->Now() >= stay_until) break;
    }
    const absl::Time due = coordinator_->Tick();
    waiters_->LookAgain();
    WriteSummaryIfDue();
    const absl::Time now = base::SystemClock()->Now();
    const absl::Time next =
        std::max(std::min({due, waiters_->AnswerOverdue(now), stay_until}), now + kShortestSleep);
    absl::MutexLock lock(&mutex_);
    base::SystemClock()->AwaitUntil(&mutex_, absl::Condition(&changed_), next);
    changed_ = false;
  }
  waiters_->Close();
  snapshots_->Close();
  server_->Shutdown(kDrain);
  endpoint_.reset();
  files_->Event("exit", {{"state", v1::RunState_Name(coordinator_->state())}});
  const absl::Status written = files_->Flush(base::SystemClock()->Now() + absl::Seconds(5));
  if (!written.ok()) base::LogWarning("files_not_flushed", {{"status", written.ToString()}});
  TEMPER_RETURN_IF_ERROR(coordinator_->VerifyAccounting());
  if (coordinator_->state() == v1::RUN_STATE_FAILED) {
    return absl::AbortedError("the run failed; summary.json says why");
  }
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
