#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/adapter_model.h"
#include "cli/commands.h"
#include "cli/json_lines.h"
#include "model/parameters.h"
#include "model/score_sequences.h"
#include "numerics/noise_policy.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct LogprobsArguments {
  std::string model;
  std::string file = "-";
  double error_scale = 0.0;
  std::string hw_error;  // empty: none
  std::string injection_point = "weight";
  uint64_t noise_seed = 0;
  int threads = 1;
};

// The named errors, as an evaluation has them.
absl::StatusOr<numerics::NoisePolicy> PolicyOf(const LogprobsArguments& arguments,
                                               const numerics::ModelShape& shape) {
  TEMPER_ASSIGN_OR_RETURN(numerics::NoisePolicy base,
                          numerics::NoisePolicy::Create(numerics::NoiseSpec(), shape));
  if (!arguments.hw_error.empty()) {
    const auto format = numerics::NumberFormatFromName(arguments.hw_error);
    const auto point = numerics::InjectionPointFromName(arguments.injection_point);
    if (!format.has_value() || !point.has_value()) {
      return absl::InvalidArgumentError(
          "--hw-error is mxfp4, nvfp4 or fp8, --injection-point weight, input, output or both");
    }
    TEMPER_ASSIGN_OR_RETURN(
        numerics::InjectionPolicy injection,
        numerics::InjectionPolicy::Create(
            {.enabled = true, .format = numerics::FormatSpec{.format = *format}, .point = *point},
            shape));
    base.set_injection(std::move(injection));
  }
  return numerics::EvaluationPolicy(base, arguments.error_scale, !arguments.hw_error.empty());
}

absl::Status Logprobs(const LogprobsArguments& arguments) {
  std::vector<std::vector<int32_t>> sequences;
  TEMPER_RETURN_IF_ERROR(
      ForEachJsonLine(arguments.file, [&](const nlohmann::json& json) -> absl::Status {
        if (!json.contains("ids") || !json["ids"].is_array()) {
          return absl::InvalidArgumentError("needs the list \"ids\"");
        }
        std::vector<int32_t> ids;
        for (const nlohmann::json& id : json["ids"]) {
          if (!id.is_number_integer())
            return absl::InvalidArgumentError("\"ids\" holds something that is no id");
          ids.push_back(id.get<int32_t>());
        }
        sequences.push_back(std::move(ids));
        return absl::OkStatus();
      }));
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters parameters, LoadPolicy(arguments.model));
  const numerics::ModelShape shape = model::NoiseShape(parameters.config, parameters.lora);
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy, PolicyOf(arguments, shape));
  TEMPER_ASSIGN_OR_RETURN(
      const auto logprobs,
      model::ScoreSequences(parameters, sequences, arguments.threads,
                            {.policy = &policy, .noise_seed = arguments.noise_seed}));
  for (const std::vector<float>& line : logprobs) {
    std::string text = "{\"logprobs\": [";
    for (size_t i = 0; i < line.size(); ++i) {
      char number[32];
      std::snprintf(number, sizeof(number), "%s%.9g", i == 0 ? "" : ", ",
                    static_cast<double>(line[i]));
      text += number;
    }
    std::printf("%s]}\n", text.c_str());
  }
  return absl::OkStatus();
}

}  // namespace

CommandBody AddLogprobsCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "logprobs", "Print the log-prob of every token after the first, float32, as JSON lines");
  auto arguments = std::make_shared<LogprobsArguments>();
  command
      ->add_option("model", arguments->model, "Hugging Face directory, .gguf file or PEFT adapter")
      ->required();
  command->add_option("file", arguments->file, "JSON lines with ids; - for standard input")
      ->capture_default_str();
  command
      ->add_option("--error-scale", arguments->error_scale,
                   "relative Gaussian error on every decoder linear")
      ->check(CLI::Range(0.0, 10.0));
  command->add_option("--hw-error", arguments->hw_error,
                      "round operands of every decoder linear to mxfp4, nvfp4 or fp8");
  command
      ->add_option("--injection-point", arguments->injection_point,
                   "which: weight, input, output or both")
      ->capture_default_str();
  command->add_option("--noise-seed", arguments->noise_seed, "seed of that error");
  command->add_option("--threads", arguments->threads, "threads")->check(CLI::Range(1, 1024));
  return [arguments] { return Logprobs(*arguments); };
}

}  // namespace temper::cli
