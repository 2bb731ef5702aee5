#pragma once

// What the supervisor does about a process that ended. Pure.

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cli/child_process.h"

namespace temper::cli {

enum class RestartAction {
  kRestart,  // start it again after `wait`
  kLeave,    // it ended as it should
  kGiveUp,   // stop the run
};

struct RestartDecision {
  RestartAction action = RestartAction::kGiveUp;
  absl::Duration wait;
  std::string reason;
};

struct RestartOptions {
  int max_restarts = 5;  // within the window
  absl::Duration window = absl::Seconds(60);
  absl::Duration first_wait = absl::Milliseconds(200);  // doubles with each restart in the window
};

// exit: how it ended. run_over: the run has finished, failed or been stopped, or the process was
// asked to go. restarts: when it was restarted before. Usage errors (exit code 2) are not repaired
// by another start; everything else may be.
RestartDecision DecideRestart(const ExitState& exit, bool run_over,
                              const std::vector<absl::Time>& restarts, absl::Time now,
                              const RestartOptions& options);

}  // namespace temper::cli
