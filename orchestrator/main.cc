// temper-orchestrator: leads one run from its run directory.

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "orchestrator/process.h"
#include "services/base/exit_code.h"
#include "services/base/signals.h"
#include "services/base/status_macros.h"
#include "services/base/stop_token.h"
#include "services/member/process.h"

namespace temper {
namespace {

struct OrchestratorFlags {
  std::string run_dir;
  bool resume = false;
  bool restarted = false;
  std::string ledger_copy;
};

absl::Status Run(const member::ProcessFlags& flags, const OrchestratorFlags& own) {
  using orchestrator::StartKind;
  TEMPER_RETURN_IF_ERROR(member::StartProcess(flags, "orchestrator"));
  base::StopToken stop;
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<base::SignalWatcher> signals,
                          base::SignalWatcher::Create(&stop));
  orchestrator::ProcessOptions options;
  options.config_file = flags.config_file;
  options.run_dir = own.run_dir;
  options.start = own.restarted ? StartKind::kRestarted
                  : own.resume  ? StartKind::kResumed
                                : StartKind::kNew;
  options.ledger_copy = own.ledger_copy;
  options.listen = flags.listen;
  options.metrics_listen = flags.metrics_listen;
  options.insecure_network = flags.insecure_network;
  options.tls = flags.tls;
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<orchestrator::OrchestratorProcess> process,
                          orchestrator::OrchestratorProcess::Create(options));
  member::PrintStartLine("orchestrator", process->address(), process->metrics_address());
  // Order of the end: no more leases, waiting calls answered, running ones drained, files written,
  // the ledger closed.
  return process->Run(&stop);
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  temper::OrchestratorFlags own;
  const auto flags = temper::member::ParseProcessFlags(
      argc, argv, "Leads a run: membership, ledger, versions, evaluation.", [&](CLI::App* app) {
        app->add_option("--run-dir", own.run_dir, "Run directory; default: the configuration's");
        CLI::Option* resume = app->add_flag(
            "--resume", own.resume, "Go on with the run that is there, also if it was stopped");
        app->add_flag("--restarted", own.restarted,
                      "The orchestrator before died: what has ended stays ended")
            ->excludes(resume);
        app->add_option("--restore-ledger", own.ledger_copy,
                        "With --resume: a checkpoint's copy of the ledger, if the ledger is lost");
      });
  if (!flags.ok()) return temper::member::ExitWith("orchestrator", flags.status());
  if (!flags->help.empty()) return temper::member::PrintHelp(*flags);
  return temper::member::ExitWith("orchestrator", temper::Run(*flags, own));
}
