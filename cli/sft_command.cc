#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/child_process.h"
#include "cli/commands.h"
#include "cli/recipe_arguments.h"
#include "cli/run_directory.h"
#include "cli/run_session.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

// Becomes the learner in its supervised mode, which needs no other process.
absl::Status WarmStart(RecipeArguments* arguments) {
  TEMPER_ASSIGN_OR_RETURN(v1::RunConfig config, arguments->Load());
  if (config.trainer().loss() != "sft") {
    return absl::InvalidArgumentError(absl::StrCat(arguments->recipe, ": trainer.loss is not sft"));
  }
  if (config.run_dir().empty()) SetRunDirectory(FreshRunDirectory(arguments->recipe), &config);
  TEMPER_ASSIGN_OR_RETURN(
      const std::unique_ptr<RunLock> lock,
      PrepareRunDirectory(config, arguments->recipe, arguments->overrides, /*resume=*/false));
  TEMPER_ASSIGN_OR_RETURN(const std::string folder, ProgramFolder());
  const std::string program = folder + "/temper-learner";
  const std::string resolved = config.run_dir() + "/resolved.yaml";
  execl(program.c_str(), program.c_str(), "--standalone-sft", "--config", resolved.c_str(),
        nullptr);
  return base::StatusFromErrno(errno, "exec", program);
}

}  // namespace

CommandBody AddSftCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("sft", "Supervised warm start by a recipe with trainer.loss: sft");
  auto arguments = std::make_shared<RecipeArguments>();
  arguments->Declare(command);
  return [arguments] { return WarmStart(arguments.get()); };
}

}  // namespace temper::cli
