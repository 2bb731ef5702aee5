#include "cli/supervisor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/run_directory.h"
#include "learner/checkpoint.h"
#include "services/base/exit_code.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/member/names.h"

namespace temper::cli {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr absl::Duration kStatusInterval = absl::Milliseconds(200);
constexpr absl::Duration kStartTimeout = absl::Seconds(30);
// How long a process may take to leave by itself, and after SIGTERM.
constexpr absl::Duration kLeaveGrace = absl::Seconds(20);
constexpr absl::Duration kTerminateGrace = absl::Seconds(10);

constexpr v1::Role kRoles[] = {v1::ROLE_ORCHESTRATOR, v1::ROLE_REWARD_SERVER, v1::ROLE_LEARNER,
                               v1::ROLE_ROLLOUT_WORKER};

std::string ProgramOf(v1::Role role) {
  switch (role) {
    case v1::ROLE_ORCHESTRATOR:
      return "temper-orchestrator";
    case v1::ROLE_REWARD_SERVER:
      return "temper-reward-server";
    case v1::ROLE_LEARNER:
      return "temper-learner";
    default:
      return "temper-rollout-worker";
  }
}

std::string MemberId(v1::Role role, int number) {
  return absl::StrCat(member::RoleName(role), "-", number);
}

// The end of a file, for the message about a process that could not start.
std::string TailOf(const std::string& path) {
  const absl::StatusOr<std::string> text = base::ReadFile(path, 64 << 20);
  if (!text.ok()) return "";
  return text->substr(text->size() - std::min<size_t>(text->size(), 1500));
}

// Metrics are plain HTTP, whatever gRPC speaks: off loopback only where that was said aloud.
std::string MetricsHost(const v1::NetworkConfig& network) {
  const bool loopback = TlsOf(network).enabled() && !network.insecure_network();
  return loopback ? "127.0.0.1" : network.listen_host();
}

void AddNetworkFlags(const v1::NetworkConfig& network, std::vector<std::string>* args) {
  if (network.insecure_network()) args->push_back("--insecure-network");
  for (const auto& [flag, file] :
       {std::pair{"--tls-certificate", network.tls_certificate()},
        std::pair{"--tls-key", network.tls_key()}, std::pair{"--tls-ca", network.tls_ca()}}) {
    if (!file.empty()) args->insert(args->end(), {flag, file});
  }
}

absl::StatusCode CodeOfExit(const ExitState& exit) {
  if (exit.signal == 0 && exit.code == base::kExitUsage) return absl::StatusCode::kInvalidArgument;
  if (exit.signal == 0 && exit.code == base::kExitData) return absl::StatusCode::kDataLoss;
  return absl::StatusCode::kInternal;
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {
  restart_options_.max_restarts = static_cast<int>(options_.config.local().max_restarts());
  restart_options_.window = absl::Seconds(options_.config.local().restart_window_seconds());
}

Supervisor::~Supervisor() = default;

absl::StatusOr<std::vector<std::string>> Supervisor::Arguments(const SlotKey& key) const {
  const auto& [role, number] = key;
  const std::string& run_dir = options_.config.run_dir();
  const std::string any_port = absl::StrCat(options_.config.network().listen_host(), ":0");
  std::vector<std::string> args = {
      "--member-id",      MemberId(role, number),
      "--metrics-listen", absl::StrCat(MetricsHost(options_.config.network()), ":0"),
      "--log-file",       absl::StrCat(run_dir, "/logs/", MemberId(role, number), ".log")};
  if (role != v1::ROLE_ROLLOUT_WORKER) args.insert(args.end(), {"--listen", any_port});
  AddNetworkFlags(options_.config.network(), &args);
  if (role == v1::ROLE_ORCHESTRATOR) {
    args.insert(args.end(),
                {"--config", absl::StrCat(run_dir, "/resolved.yaml"), "--run-dir", run_dir});
    // Only a person goes on with a run that was stopped or had failed.
    if (orchestrator_started_) {
      args.push_back("--restarted");
    } else if (options_.resume) {
      TEMPER_ASSIGN_OR_RETURN(const std::string copy, LedgerCopyToResume(options_.config));
      args.push_back("--resume");
      if (!copy.empty()) args.insert(args.end(), {"--restore-ledger", copy});
    }
    return args;
  }
  args.insert(args.end(), {"--join", address_});
  if (role == v1::ROLE_LEARNER) {
    TEMPER_ASSIGN_OR_RETURN(const auto checkpoint, learner::FindLatestCheckpoint(run_dir));
    if (checkpoint.has_value()) args.insert(args.end(), {"--resume-from", *checkpoint});
  }
  return args;
}

absl::Status Supervisor::StartSlot(const SlotKey& key, Slot* slot) {
  slot->asked_to_go = absl::InfiniteFuture();
  const auto& [role, number] = key;
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> args, Arguments(key));
  const std::string errors =
      absl::StrCat(options_.config.run_dir(), "/logs/", MemberId(role, number), ".stderr");
  TEMPER_ASSIGN_OR_RETURN(
      slot->process,
      ChildProcess::Start(absl::StrCat(program_folder_, "/", ProgramOf(role)), args, errors));
  if (role == v1::ROLE_ORCHESTRATOR) orchestrator_started_ = true;
  options_.on_event(
      absl::StrCat("started ", MemberId(role, number), " (pid ", slot->process->pid(), ")"));
  return absl::OkStatus();
}

absl::Status Supervisor::StartOrchestrator() {
  const SlotKey key = {v1::ROLE_ORCHESTRATOR, 0};
  Slot& slot = slots_[key];
  TEMPER_RETURN_IF_ERROR(StartSlot(key, &slot));
  const absl::StatusOr<Greeting> greeting = slot.process->ReadGreeting(absl::Now() + kStartTimeout);
  if (!greeting.ok()) {
    const std::string said =
        TailOf(absl::StrCat(options_.config.run_dir(), "/logs/orchestrator-0.stderr"));
    AwaitExits(absl::Seconds(2), /*with_orchestrator=*/true);
    const std::optional<ExitState> exit = slot.process->Poll();
    return absl::Status(
        exit.has_value() ? CodeOfExit(*exit) : absl::StatusCode::kInternal,
        absl::StrCat("the orchestrator did not start: ", greeting.status().message(), "\n", said));
  }
  if (greeting->address != address_) {
    address_ = greeting->address;
    TEMPER_ASSIGN_OR_RETURN(orchestrator_,
                            OrchestratorClient::Create(address_, TlsOf(options_.config.network())));
  }
  return WritePrometheusConfig(options_.config.run_dir(), greeting->metrics_address);
}

// An orchestrator that does not come back counts as one that died again: the restart policy
// decides.
absl::Status Supervisor::RestartOrchestrator(Slot* slot) {
  const absl::Status started = StartOrchestrator();
  if (started.ok() || slot->process == nullptr) return started;
  options_.on_event(std::string(started.message()));
  slot->process->Kill();
  return absl::OkStatus();
}

absl::Status Supervisor::Run(base::StopToken* stop) {
  TEMPER_ASSIGN_OR_RETURN(program_folder_, ProgramFolder());
  absl::Status tended = StartOrchestrator();
  if (tended.ok()) {
    for (uint32_t i = 0; i < options_.config.local().reward_servers(); ++i)
      slots_[{v1::ROLE_REWARD_SERVER, i}];
    slots_[{v1::ROLE_LEARNER, 0}];
    for (uint32_t i = 0; i < options_.config.local().rollout_workers(); ++i)
      slots_[{v1::ROLE_ROLLOUT_WORKER, i}];
  }
  while (tended.ok() && !RunIsOver() && !stop->WaitFor(kTick)) tended = Tend();
  if (!tended.ok()) {
    StopEverything(/*ask_orchestrator=*/true, std::string(tended.message()), /*failed=*/true);
    return tended;
  }
  StopEverything(/*ask_orchestrator=*/!RunIsOver(), "stopped by request", /*failed=*/false);
  return FinalStatus();
}

absl::Status Supervisor::Tend() {
  const absl::Time now = absl::Now();
  if (now >= next_poll_) {
    next_poll_ = now + kStatusInterval;
    PollStatus();
    FollowDesired();
  }
  for (auto& [key, slot] : slots_) TEMPER_RETURN_IF_ERROR(TendSlot(key, &slot, now));
  std::erase_if(slots_, [](const auto& entry) {
    return !entry.second.wanted && entry.second.process == nullptr;
  });
  return absl::OkStatus();
}

absl::Status Supervisor::TendSlot(const SlotKey& key, Slot* slot, absl::Time now) {
  if (slot->process == nullptr) {
    if (!slot->wanted || now < slot->start_at) return absl::OkStatus();
    return key.first == v1::ROLE_ORCHESTRATOR ? RestartOrchestrator(slot) : StartSlot(key, slot);
  }
  if (now - slot->asked_to_go > kTerminateGrace) slot->process->Kill();
  const std::optional<ExitState> exit = slot->process->Poll();
  if (!exit.has_value()) return absl::OkStatus();
  if (slot->wanted && slot->asked_to_go != absl::InfiniteFuture()) {
    slot->process = nullptr;  // it went as it was asked, and is wanted again since
    return absl::OkStatus();
  }
  PollStatus();  // a process may leave because the run has just ended
  // The orchestrator leaves by itself when all is over, and stays up until it could say so.
  if (key.first == v1::ROLE_ORCHESTRATOR && exit->signal == 0 && exit->code == 0) over_ = true;
  const std::string member = MemberId(key.first, key.second);
  const RestartDecision decision = DecideRestart(key.first, *exit, RunIsOver() || !slot->wanted,
                                                 slot->restarts, now, restart_options_);
  options_.on_event(
      absl::StrCat(member, " ended (", decision.reason, ")",
                   decision.action == RestartAction::kRestart ? ", restarting it" : ""));
  slot->process = nullptr;
  if (decision.action == RestartAction::kGiveUp) {
    const std::string errors = absl::StrCat(options_.config.run_dir(), "/logs/", member, ".stderr");
    return absl::Status(CodeOfExit(*exit),
                        absl::StrCat(member, " gave up: ", decision.reason, "\n", TailOf(errors)));
  }
  if (decision.action == RestartAction::kRestart) {
    slot->restarts.push_back(now);
    slot->start_at = now + decision.wait;
  }
  return absl::OkStatus();
}

void Supervisor::PollStatus() {
  if (orchestrator_ == nullptr) return;
  absl::StatusOr<v1::GetStatusReply> reply =
      orchestrator_->GetStatus(last_step_, absl::Milliseconds(500));
  if (!reply.ok()) return;  // it is restarting; the next poll will tell
  last_step_ = reply->step();
  status_ = *std::move(reply);
  options_.on_status(status_);
}

// Starts or asks to go, so that there are as many as the orchestrator says are wanted.
void Supervisor::FollowDesired() {
  for (const v1::Role role : {v1::ROLE_ROLLOUT_WORKER, v1::ROLE_REWARD_SERVER}) {
    const auto desired = status_.desired().find(member::RoleName(role));
    if (desired == status_.desired().end()) continue;
    const int count = static_cast<int>(desired->second);
    for (int i = 0; i < count; ++i) slots_[{role, i}].wanted = true;
    for (auto& [key, slot] : slots_) {
      if (key.first != role || key.second < count || !slot.wanted) continue;
      slot.wanted = false;
      slot.asked_to_go = absl::Now();
      if (slot.process != nullptr) slot.process->Terminate();
    }
  }
}

bool Supervisor::RunIsOver() const {
  return over_ || status_.state() == v1::RUN_STATE_FINISHED ||
         status_.state() == v1::RUN_STATE_STOPPED || status_.state() == v1::RUN_STATE_FAILED;
}

void Supervisor::AwaitExits(absl::Duration grace, bool with_orchestrator) {
  const absl::Time deadline = absl::Now() + grace;
  base::StopToken never;
  while (absl::Now() < deadline) {
    const bool all_gone = std::all_of(slots_.begin(), slots_.end(), [&](auto& entry) {
      if (!with_orchestrator && entry.first.first == v1::ROLE_ORCHESTRATOR) return true;
      return entry.second.process == nullptr || entry.second.process->Poll().has_value();
    });
    if (all_gone) return;
    never.WaitFor(kTick);
  }
}

void Supervisor::StopEverything(bool ask_orchestrator, const std::string& reason, bool failed) {
  if (ask_orchestrator && orchestrator_ != nullptr) {
    const absl::Status asked = orchestrator_->StopRun(status_.run_id(), reason, failed);
    if (!asked.ok())
      options_.on_event(absl::StrCat("could not tell the orchestrator: ", asked.ToString()));
  }
  AwaitExits(ask_orchestrator ? absl::Seconds(5) : kLeaveGrace, /*with_orchestrator=*/false);
  PollStatus();
  // The orchestrator goes last: the others hand back what they hold.
  for (auto role = std::rbegin(kRoles); role != std::rend(kRoles); ++role) {
    for (auto& [key, slot] : slots_) {
      if (key.first == *role && slot.process != nullptr) slot.process->Terminate();
    }
    AwaitExits(kTerminateGrace, /*with_orchestrator=*/*role == v1::ROLE_ORCHESTRATOR);
  }
  slots_.clear();  // kills what is left
}

absl::Status Supervisor::FinalStatus() const {
  if (status_.state() == v1::RUN_STATE_FAILED) return absl::InternalError(status_.state_reason());
  return absl::OkStatus();
}

}  // namespace temper::cli
