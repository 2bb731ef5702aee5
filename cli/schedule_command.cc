#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/recipe_arguments.h"
#include "numerics/aqn.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"

namespace temper::cli {
namespace {

absl::Status Schedule(RecipeArguments* arguments) {
  TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig config, arguments->Load());
  TEMPER_ASSIGN_OR_RETURN(const numerics::AqnPlan plan,
                          config::AqnPlanFromConfig(config, {.num_layers = -1}));
  for (int64_t t = 0; t < plan.total_steps; ++t) {
    const nlohmann::ordered_json line = {{"update", t}, {"sigma", numerics::Sigma(plan, t)}};
    std::printf("%s\n", line.dump().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

CommandBody AddScheduleCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("schedule", "Print sigma of AQN for every planned update, as JSON lines");
  auto arguments = std::make_shared<RecipeArguments>();
  arguments->Declare(command);
  return [arguments] { return Schedule(arguments.get()); };
}

}  // namespace temper::cli
