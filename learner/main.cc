// temper-learner: admits groups, trains, publishes weights, writes checkpoints.
//
// Stopping: SIGTERM raises the stop; the loop ends its wait or abandons its update, the server
// drains, the member leaves, exit 0 (learner_process.cc).

#include <memory>

#include "CLI/CLI.hpp"
#include "learner/learner_process.h"
#include "services/base/signals.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

constexpr char kProgram[] = "temper-learner";

absl::Status Serve(const LearnerFlags& flags) {
  base::StopToken stop;
  TEMPER_ASSIGN_OR_RETURN(const auto signals, base::SignalWatcher::Create(&stop));
  if (flags.standalone_sft) {
    if (flags.process.config_file.empty()) {
      return absl::InvalidArgumentError("--config: --standalone-sft needs a configuration");
    }
    return RunSftCommand(flags, &stop);
  }
  if (flags.process.join.empty()) {
    return absl::InvalidArgumentError("--join: the orchestrator's host:port is needed");
  }
  return RunLearner(flags, &stop);
}

}  // namespace
}  // namespace temper::learner

int main(int argc, char** argv) {
  using namespace temper;
  learner::LearnerFlags flags;
  auto parsed = member::ParseProcessFlags(
      argc, argv, "Trains a policy on the groups that rollout workers submit.", [&](CLI::App* app) {
        app->add_option("--resume-from", flags.resume_from, "Checkpoint directory to go on from");
        app->add_flag("--standalone-sft", flags.standalone_sft,
                      "Supervised warm start of --config, without other processes");
      });
  if (!parsed.ok()) return member::ExitWith(learner::kProgram, parsed.status());
  if (!parsed->help.empty()) return member::PrintHelp(*parsed);
  flags.process = *std::move(parsed);
  absl::Status status = member::StartProcess(flags.process, "learner");
  if (status.ok()) status = learner::Serve(flags);
  return member::ExitWith(learner::kProgram, status);
}
