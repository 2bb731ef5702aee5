#pragma once

// What the supervisor does about a process that ended. Pure.

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cli/child_process.h"
#include "temper/v1/common.pb.h"

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

// role: of the process. exit: how it ended. run_over: the run has finished, failed or been stopped,
// or the process was asked to go. restarts: when it was restarted before.
// Not repaired by another start, so given up at once:
//   - usage errors (exit code 2) of any role;
//   - corrupt data (exit code 4) of the orchestrator and of the learner, which read what is on the
//     disk: the ledger and the questions, the model. A damaged checkpoint is not among it while a
//     whole one is left: whoever starts the learner takes that.
// A rollout worker's corrupt data may have been weights damaged on their way, which the next
// incarnation pulls anew; a reward server reads none. Everything else may be weather too.
RestartDecision DecideRestart(v1::Role role, const ExitState& exit, bool run_over,
                              const std::vector<absl::Time>& restarts, absl::Time now,
                              const RestartOptions& options);

}  // namespace temper::cli
