#pragma once

// The learner as a process: wires its parts, in order, and takes them down in the reverse one.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "services/base/stop_token.h"
#include "services/rpc/tls.h"

namespace temper::learner {

// The command line.
struct LearnerFlags {
  std::string config_path;  // resolved YAML; empty: the orchestrator's configuration
  std::string join;         // orchestrator "host:port"
  std::string listen = "127.0.0.1:0";
  std::string metrics_listen = "127.0.0.1:0";
  std::string member_id;     // empty: made of host and pid
  uint64_t incarnation = 0;  // 0: the time
  std::string resume_from;   // checkpoint directory; empty: see RunLearner
  bool insecure_network = false;
  rpc::TlsOptions tls;
};

// Serves and trains until the run is over or `stop` is raised.
//   start  metrics endpoint, server, join, model (or checkpoint), BeginTimeline, admission, loop
//   stop   admission ends, the loop returns, the server drains, the member leaves
// Without resume_from it starts afresh, unless the run has had a learner before: then from the
// newest checkpoint in the run directory, if there is one.
// Prints one line of JSON on standard output once it has joined. Returns the first error; OK where
// the run ended or a stop was asked for.
absl::Status RunLearner(const LearnerFlags& flags, base::StopToken* stop);

// Standalone supervised training of the configuration in flags.config_path: one JSON line per
// logged step on standard output.
absl::Status RunSftCommand(const LearnerFlags& flags, base::StopToken* stop);

}  // namespace temper::learner
