#include <cstdio>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "cli/commands.h"
#include "cli/orchestrator_client.h"
#include "cli/progress.h"
#include "cli/recipe_arguments.h"
#include "cli/run_directory.h"
#include "cli/supervisor.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

absl::Status Status(const std::string& word) {
  TEMPER_ASSIGN_OR_RETURN(const std::string run_dir, ResolveRunDirectory(word));
  TEMPER_ASSIGN_OR_RETURN(const OrchestratorRecord record, ReadOrchestratorRecord(run_dir));
  TEMPER_ASSIGN_OR_RETURN(const auto client,
                          OrchestratorClient::Create(record.address, record.tls));
  const absl::StatusOr<v1::GetStatusReply> status =
      client->GetStatus(/*after_step=*/~uint64_t{0}, absl::Seconds(3));
  if (!status.ok()) {
    return absl::UnavailableError("no orchestrator answers at " + record.address + "; the run in " +
                                  run_dir + " is not running");
  }
  std::printf("run %s in %s\n%s\n", status->run_id().c_str(), run_dir.c_str(),
              ActivityLine(*status).c_str());
  for (const v1::Peer& member : status->members()) {
    std::printf("  %-20s %-10s %s metrics http://%s/metrics\n", member.member_id().c_str(),
                member.healthy() ? "healthy" : "silent", member.address().c_str(),
                member.metrics_address().c_str());
  }
  for (const auto& [state, count] : status->attempts()) {
    if (count > 0)
      std::printf("  attempts %-24s %llu\n", state.c_str(), static_cast<unsigned long long>(count));
  }
  return absl::OkStatus();
}

}  // namespace

CommandBody AddStatusCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("status", "Show what a running run is doing: members, step, accounting");
  auto word = std::make_shared<std::string>();
  command->add_option("run", *word, "run directory (default: the newest under runs/)");
  return [word] { return Status(*word); };
}

}  // namespace temper::cli
