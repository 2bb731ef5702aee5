#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/recipe_arguments.h"
#include "prompts/dataset_config.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct ProblemsArguments {
  RecipeArguments recipe;
  std::string split = "train";
  uint64_t count = 5;
};

absl::Status Problems(ProblemsArguments* arguments) {
  TEMPER_ASSIGN_OR_RETURN(const v1::RunConfig config, arguments->recipe.Load());
  const prompts::Split split = arguments->split == "eval"         ? prompts::Split::kEval
                               : arguments->split == "warm-start" ? prompts::Split::kWarmStart
                                                                  : prompts::Split::kTrain;
  TEMPER_ASSIGN_OR_RETURN(
      const auto source,
      prompts::CreatePromptSource(prompts::DatasetOptionsFromConfig(config.dataset()), split));
  for (uint64_t i = 0; i < arguments->count && i < source->size().value_or(arguments->count); ++i) {
    TEMPER_ASSIGN_OR_RETURN(const prompts::Problem problem, source->Get(i));
    const nlohmann::ordered_json line = {{"id", problem.id},
                                         {"prompt", problem.prompt},
                                         {"solution", problem.answer_text},
                                         {"truth", problem.truth}};
    std::printf("%s\n", line.dump().c_str());
  }
  return absl::OkStatus();
}

}  // namespace

CommandBody AddProblemsCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("problems", "Print problems of a recipe's data set as JSON lines");
  auto arguments = std::make_shared<ProblemsArguments>();
  arguments->recipe.Declare(command);
  command->add_option("--split", arguments->split, "train, eval or warm-start")
      ->check(CLI::IsMember({"train", "eval", "warm-start"}))
      ->capture_default_str();
  command->add_option("--count", arguments->count, "how many, from the first")
      ->capture_default_str();
  return [arguments] { return Problems(arguments.get()); };
}

}  // namespace temper::cli
