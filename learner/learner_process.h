#pragma once

// The learner as a process: wires its parts, in order, and takes them down in the reverse one.

#include <string>

#include "absl/status/status.h"
#include "services/base/stop_token.h"
#include "services/member/process.h"

namespace temper::learner {

// The command line.
struct LearnerFlags {
  member::ProcessFlags process;
  std::string resume_from;      // --resume-from, a checkpoint directory; empty: see RunLearner
  bool standalone_sft = false;  // --standalone-sft
};

// Serves and trains until the run is over or `stop` is raised.
//   start  metrics endpoint, server, join, model (or checkpoint), BeginTimeline, admission, loop
//   stop   admission ends, the loop returns, the server drains, the member leaves
// Without resume_from it starts afresh, unless the run has had a learner before: then from the
// newest checkpoint in the run directory, if there is one.
// Prints one line of JSON on standard output once it serves. Returns the first error; OK where the
// run ended or a stop was asked for.
absl::Status RunLearner(const LearnerFlags& flags, base::StopToken* stop);

// Standalone supervised training of the configuration of --config: one JSON line per
// logged step on standard output.
absl::Status RunSftCommand(const LearnerFlags& flags, base::StopToken* stop);

}  // namespace temper::learner
