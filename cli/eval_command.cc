#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/adapter_model.h"
#include "cli/commands.h"
#include "cli/recipe_arguments.h"
#include "cli/run_directory.h"
#include "cli/run_session.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::cli {
namespace {

struct EvalArguments {
  std::string model;
  std::string recipe = "quickstart";
  std::vector<double> error_scales;
  std::string hw_error;  // empty: none
  std::string injection_point = "weight";
  std::vector<std::string> overrides;
};

// Under a number format alone: the error of operators is what --error-scale names.
void AddInjection(const EvalArguments& arguments, std::vector<std::string>* overrides) {
  if (arguments.hw_error.empty()) return;
  const char* block = "trainer.hw_error_injection.";
  overrides->push_back(absl::StrCat(block, "enabled=true"));
  overrides->push_back(absl::StrCat(block, "error_type=", arguments.hw_error));
  overrides->push_back(absl::StrCat(block, "injection_point=", arguments.injection_point));
  overrides->push_back("trainer.noisy_ops.enabled=false");
}

// An evaluation is a run without updates: the same processes, the same record.
absl::Status Evaluate(const EvalArguments& arguments) {
  RecipeArguments recipe;
  std::vector<std::string> overrides = arguments.overrides;
  if (FindAdapter(arguments.model).has_value()) {
    TEMPER_ASSIGN_OR_RETURN(const AdapterModel adapter, OpenAdapter(arguments.model, ""));
    for (std::string& override : OverridesFor(adapter)) overrides.push_back(std::move(override));
  } else {
    overrides.push_back(absl::StrCat("model.path=", arguments.model));
    overrides.push_back("trainer.lora.enabled=false");
  }
  overrides.push_back("trainer.total_updates=0");
  overrides.push_back("eval.enabled=true");
  AddInjection(arguments, &overrides);
  TEMPER_ASSIGN_OR_RETURN(v1::RunConfig config, recipe.LoadNamed(arguments.recipe, overrides));
  if (!arguments.error_scales.empty()) {
    config.mutable_eval()->clear_error_scales();
    for (const double scale : arguments.error_scales)
      config.mutable_eval()->add_error_scales(scale);
  }
  // A model is evaluated under no noise but what the evaluation names.
  config.mutable_trainer()->mutable_noise_injection()->set_enabled(false);
  TEMPER_RETURN_IF_ERROR(CheckRunnable(config));
  if (config.run_dir().empty()) SetRunDirectory(FreshRunDirectory("eval"), &config);
  TEMPER_ASSIGN_OR_RETURN(const std::unique_ptr<RunLock> lock,
                          PrepareRunDirectory(config, recipe.recipe, overrides, /*resume=*/false));
  return RunSession(config, /*resume=*/false, /*verbose=*/false);
}

}  // namespace

CommandBody AddEvalCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("eval", "Evaluate a model under error; writes the record a run writes");
  auto arguments = std::make_shared<EvalArguments>();
  command
      ->add_option("model", arguments->model, "Hugging Face directory, .gguf file or PEFT adapter")
      ->required();
  command
      ->add_option("--recipe", arguments->recipe, "recipe that names the questions and the reward")
      ->capture_default_str();
  command
      ->add_option("--error-scale", arguments->error_scales,
                   "scales, as 0,0.05,0.10 (default: the recipe's)")
      ->delimiter(',')
      ->allow_extra_args(false);  // one word: what follows it is an override
  command->add_option("--hw-error", arguments->hw_error,
                      "also under hw_error_injection of this error_type, as mxfp4");
  command
      ->add_option("--injection-point", arguments->injection_point,
                   "where: weight, input, output or both")
      ->capture_default_str();
  command->add_option("overrides", arguments->overrides, "key.path=value");
  return [arguments] { return Evaluate(*arguments); };
}

}  // namespace temper::cli
