// temper-learner: admits groups, trains, publishes weights, writes checkpoints.
//
// Stopping: SIGTERM raises the stop; the loop ends its wait or abandons its update, the server
// drains, the member leaves, exit 0.

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "learner/learner_process.h"
#include "services/base/exit_code.h"
#include "services/base/log.h"
#include "services/base/signals.h"

int main(int argc, char** argv) {
  namespace base = temper::base;
  temper::learner::LearnerFlags flags;
  base::LogOptions logging{.role = "learner"};
  bool standalone_sft = false;
  bool die_with_parent = false;

  CLI::App app("Temper's learner: trains a policy on the groups rollout workers submit.");
  app.add_option("--config", flags.config_path, "resolved configuration (YAML)");
  app.add_option("--join", flags.join, "host:port of the run's orchestrator");
  app.add_option("--listen", flags.listen, "host:port to serve on; port 0: any");
  app.add_option("--metrics-listen", flags.metrics_listen, "host:port of /metrics");
  app.add_option("--member-id", flags.member_id, "unique name in the run");
  app.add_option("--incarnation", flags.incarnation, "larger at each start of a member");
  app.add_option("--resume-from", flags.resume_from, "checkpoint directory to continue from");
  app.add_option("--log-file", logging.file, "also log to this file");
  app.add_flag("--standalone-sft", standalone_sft, "supervised warm start of --config, alone");
  app.add_flag("--die-with-parent", die_with_parent, "end when the launcher ends");
  app.add_flag("--insecure-network", flags.insecure_network, "allow a bind off loopback, no TLS");
  app.add_option("--tls-certificate", flags.tls.certificate_file, "PEM file");
  app.add_option("--tls-key", flags.tls.private_key_file, "PEM file");
  app.add_option("--tls-ca", flags.tls.ca_file, "PEM file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? base::kExitOk : base::kExitUsage;
  }
  if (standalone_sft ? flags.config_path.empty() : flags.join.empty()) {
    std::fprintf(stderr, "temper-learner: needs %s\n", standalone_sft ? "--config" : "--join");
    return base::kExitUsage;
  }
  if (die_with_parent) base::DieWithParent(getppid());

  base::StopToken stop;
  absl::Status status = base::StartLogging(logging);
  if (status.ok()) {
    auto signals = base::SignalWatcher::Create(&stop);
    status = signals.status();
    if (status.ok()) {
      status = standalone_sft ? temper::learner::RunSftCommand(flags, &stop)
                              : temper::learner::RunLearner(flags, &stop);
    }
  }
  if (!status.ok()) {
    base::LogError("learner_failed", {{"code", absl::StatusCodeToString(status.code())},
                                      {"error", status.message()}});
  }
  return base::ExitCode(status);
}
