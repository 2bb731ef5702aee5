#pragma once

// The local supervisor: starts the processes of a run on this machine, keeps as many of each role
// as the orchestrator says are wanted, restarts those that die, and stops them in order at the end.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/orchestrator_client.h"
#include "cli/restart_policy.h"
#include "services/base/stop_token.h"
#include "temper/v1/config.pb.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::cli {

struct SupervisorOptions {
  v1::RunConfig config;  // resolved; run_dir is prepared
  bool resume = false;
  // Called with each new status (at most five times a second), on the supervisor's thread.
  std::function<void(const v1::GetStatusReply&)> on_status;
  // Called with each change of a process: started, ended, restarted.
  std::function<void(const std::string&)> on_event;
};

// Used by one thread, the one that made it (its children die with that thread).
class Supervisor final {
 public:
  explicit Supervisor(SupervisorOptions options);
  ~Supervisor();

  // Starts everything, stays until the run is over or `stop` is raised, and stops everything.
  // Returns the final status of the run: OK (finished, or stopped as asked); Internal naming the
  // reason if the run failed; what a process that cannot be started says; DataLoss where a process
  // gave up with exit code 4.
  absl::Status Run(base::StopToken* stop);

  // The last status heard from the orchestrator.
  const v1::GetStatusReply& status() const { return status_; }

 private:
  // One place for a process: role and number.
  struct Slot {
    std::unique_ptr<ChildProcess> process;
    std::vector<absl::Time> restarts;
    absl::Time start_at = absl::InfinitePast();  // not before
    absl::Time asked_to_go = absl::InfiniteFuture();
    bool wanted = true;
  };
  using SlotKey = std::pair<v1::Role, int>;

  absl::Status StartOrchestrator();
  absl::Status RestartOrchestrator(Slot* slot);
  absl::Status StartSlot(const SlotKey& key, Slot* slot);
  absl::StatusOr<std::vector<std::string>> Arguments(const SlotKey& key) const;
  // One round: reap, restart, follow the wanted counts.
  absl::Status Tend();
  absl::Status TendSlot(const SlotKey& key, Slot* slot, absl::Time now);
  void FollowDesired();
  void PollStatus();
  bool RunIsOver() const;
  // Ends everything: asks, waits, terminates, kills; the orchestrator last.
  void StopEverything(bool ask_orchestrator, const std::string& reason, bool failed);
  void AwaitExits(absl::Duration grace, bool with_orchestrator);
  absl::Status FinalStatus() const;

  const SupervisorOptions options_;
  RestartOptions restart_options_;
  std::string program_folder_;
  std::string address_;  // of the orchestrator
  std::unique_ptr<OrchestratorClient> orchestrator_;
  std::map<SlotKey, Slot> slots_;
  v1::GetStatusReply status_;
  absl::Time next_poll_ = absl::InfinitePast();
  uint64_t last_step_ = 0;             // newest metrics line seen
  bool over_ = false;                  // the orchestrator has left by itself
  bool orchestrator_started_ = false;  // once; later starts are the supervisor's own
};

}  // namespace temper::cli
