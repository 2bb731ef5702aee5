#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/noise_warnings.h"
#include "cli/recipe_arguments.h"
#include "cli/run_session.h"
#include "cli/scan_multipliers.h"
#include "model/io/loader.h"
#include "model/io/lora_spec.h"
#include "model/noise_context.h"
#include "services/base/status_macros.h"
#include "services/config/derived.h"
#include "services/config/idle_fields.h"
#include "services/config/lora_selection.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"

namespace temper::cli {
namespace {

// What training changes of the model.
void PrintTrained(const model::ModelConfig& model, const model::LoraSpec& lora) {
  const auto all = static_cast<long long>(model::TrainedWeights(model, model::LoraSpec()));
  if (!lora.enabled()) {
    std::printf("# trained parameters: %lld\n", all);
    return;
  }
  const auto adapters = static_cast<long long>(model::TrainedWeights(model, lora));
  std::printf("# trained parameters: %lld in adapters of %zu linears, beside %lld frozen ones\n",
              adapters, lora.modules.size(), all);
}

// The adapters and the noise blocks against the model's shape, where the model is there.
absl::Status PrintModel(const v1::RunConfig& config) {
  if (!std::filesystem::exists(config.model().path())) {
    std::printf("# model: %s is not there; adapters and noise were not checked against it\n",
                config.model().path().c_str());
    return absl::OkStatus();
  }
  TEMPER_ASSIGN_OR_RETURN(const model::ModelConfig model,
                          model::LoadModelConfig(config.model().path()));
  TEMPER_ASSIGN_OR_RETURN(const model::LoraSpec lora,
                          model::MakeLoraSpec(model, config::LoraSelectionFromConfig(config)));
  const numerics::ModelShape shape = model::NoiseShape(model, lora);
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          config::NoisePolicyFromConfig(config, shape));
  TEMPER_ASSIGN_OR_RETURN(const numerics::AqnPlan aqn, config::AqnPlanFromConfig(config, shape));
  std::printf("# model: %d layers, hidden size %d, vocabulary %d\n",
              static_cast<int>(model.num_layers), static_cast<int>(model.hidden_size),
              static_cast<int>(model.vocab_size));
  PrintTrained(model, lora);
  std::printf("# noise id: %016llx\n",
              static_cast<unsigned long long>(config::NoiseId(policy, aqn)));
  std::printf("# noisy_ops: %s\n", policy.Describe().c_str());
  std::printf("# hw_error_injection: %s\n", policy.injection().Describe().c_str());
  if (const absl::Status supported = model::CheckPolicySupported(policy); !supported.ok()) {
    std::printf("# %s; `temper run` refuses it\n", std::string(supported.message()).c_str());
  }
  if (aqn.enabled) {
    std::printf("# AQN acts on %zu weights\n", numerics::AqnTargets(aqn, shape).size());
    TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string> warnings, AqnWarningsOf(config));
    for (const std::string& warning : warnings) std::printf("# warning: %s\n", warning.c_str());
  }
  return absl::OkStatus();
}

absl::Status Check(RecipeArguments* arguments) {
  TEMPER_ASSIGN_OR_RETURN(v1::RunConfig config, arguments->Load());
  if (std::filesystem::exists(config.model().path())) {
    TEMPER_RETURN_IF_ERROR(ResolveScanMultipliers(arguments->resolved, &config));
  }
  std::printf("%s", config::ToYaml(config).c_str());
  for (const auto& [name, value] : config::DerivedNumbers(config)) {
    std::printf("# %s: %s\n", name.c_str(), value.c_str());
  }
  std::printf("# fingerprint: %016llx\n",
              static_cast<unsigned long long>(config::Fingerprint(config)));
  TEMPER_RETURN_IF_ERROR(PrintModel(config));
  for (const config::IdleField& idle : config::IdleFields(config)) {
    std::printf("# warning: %s: %s\n", idle.key.c_str(), idle.why.c_str());
  }
  for (const std::string& line : Lacking(config)) std::printf("# %s\n", line.c_str());
  return absl::OkStatus();
}

}  // namespace

CommandBody AddCheckCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "check", "Check a recipe; print its resolved configuration and derived numbers");
  auto arguments = std::make_shared<RecipeArguments>();
  arguments->Declare(command);
  return [arguments] { return Check(arguments.get()); };
}

}  // namespace temper::cli
