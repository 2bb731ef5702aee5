#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/noise_warnings.h"
#include "cli/recipe_arguments.h"
#include "cli/run_directory.h"
#include "cli/run_session.h"
#include "cli/scan_multipliers.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct RunArguments {
  RecipeArguments recipe;
  std::string resume;  // "" or "auto"
  bool verbose = false;
};

absl::Status RunRecipe(RunArguments* arguments) {
  if (!arguments->resume.empty() && arguments->resume != "auto") {
    return absl::InvalidArgumentError(
        "--resume takes the word auto: go on from the newest checkpoint");
  }
  TEMPER_ASSIGN_OR_RETURN(v1::RunConfig config, arguments->recipe.Load());
  if (config.trainer().loss() == "sft") {
    return absl::InvalidArgumentError("trainer.loss is sft: use `temper sft`");
  }
  const bool resume =
      arguments->resume == "auto" && base::PathExists(config.run_dir() + "/resolved.yaml");
  TEMPER_RETURN_IF_ERROR(ResolveScanMultipliers(arguments->recipe.resolved, &config));
  TEMPER_RETURN_IF_ERROR(CheckRunnable(config));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> warnings, AqnWarningsOf(config));
  for (const std::string& warning : warnings) std::printf("warning: %s\n", warning.c_str());
  if (config.run_dir().empty())
    SetRunDirectory(FreshRunDirectory(arguments->recipe.recipe), &config);
  TEMPER_ASSIGN_OR_RETURN(
      const std::unique_ptr<RunLock> lock,
      PrepareRunDirectory(config, arguments->recipe.recipe, arguments->recipe.overrides, resume));
  const absl::Status ended = RunSession(config, resume, arguments->verbose);
  if (ended.ok() || absl::IsInvalidArgument(ended)) return ended;
  return absl::Status(ended.code(),
                      absl::StrCat(ended.message(), "\ngo on, once that is mended, ",
                                   "with: ./temper run ", config.run_dir(), " --resume auto"));
}

}  // namespace

CommandBody AddRunCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("run", "Train by a recipe: five roles as processes on this machine");
  auto arguments = std::make_shared<RunArguments>();
  arguments->recipe.Declare(command);
  command->add_option("--resume", arguments->resume,
                      "auto: go on from the newest checkpoint in run_dir");
  command->add_flag("-v,--verbose", arguments->verbose, "print each process that starts or ends");
  return [arguments] { return RunRecipe(arguments.get()); };
}

}  // namespace temper::cli
