#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/orchestrator_client.h"
#include "cli/recipe_arguments.h"
#include "cli/run_directory.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct ScaleArguments {
  std::string run;
  std::vector<std::string> counts;  // role=N
};

absl::Status Scale(const ScaleArguments& arguments) {
  TEMPER_ASSIGN_OR_RETURN(const std::string run_dir, ResolveRunDirectory(arguments.run));
  TEMPER_ASSIGN_OR_RETURN(const OrchestratorRecord record, ReadOrchestratorRecord(run_dir));
  TEMPER_ASSIGN_OR_RETURN(const auto client,
                          OrchestratorClient::Create(record.address, record.tls));
  for (const std::string& word : arguments.counts) {
    const size_t equals = word.find('=');
    const std::string role = word.substr(0, equals);
    uint32_t count = 0;
    if (equals == std::string::npos || !absl::SimpleAtoi(word.substr(equals + 1), &count) ||
        count > 256 || (role != "rollout_workers" && role != "reward_servers")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", word, "' is not rollout_workers=N or reward_servers=N with N up to 256"));
    }
    const v1::Role which =
        role == "rollout_workers" ? v1::ROLE_ROLLOUT_WORKER : v1::ROLE_REWARD_SERVER;
    TEMPER_RETURN_IF_ERROR(client->SetDesired(record.run_id, which, count));
    std::printf("%s: %u wanted\n", role.c_str(), count);
  }
  return absl::OkStatus();
}

}  // namespace

CommandBody AddScaleCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "scale", "Set how many rollout workers (or reward servers) a running run keeps");
  auto arguments = std::make_shared<ScaleArguments>();
  command->add_option("run", arguments->run, "run directory, or latest")->required();
  command->add_option("counts", arguments->counts, "rollout_workers=N or reward_servers=N")
      ->required();
  return [arguments] { return Scale(*arguments); };
}

}  // namespace temper::cli
