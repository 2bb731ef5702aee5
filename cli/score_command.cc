#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/json_lines.h"
#include "prompts/problem.h"
#include "reward_server/scoring.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct ScoreArguments {
  std::string rule = "strict";
  std::string file = "-";
};

absl::Status ScoreFile(const ScoreArguments& arguments) {
  const std::optional<reward_server::Rule> rule = reward_server::ParseRule(arguments.rule);
  if (!rule.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--rule ", arguments.rule, " is none of strict, flexible, numeric"));
  }
  return ForEachJsonLine(arguments.file, [&](const nlohmann::json& json) -> absl::Status {
    if (!json.contains("completion") || !json["completion"].is_string() ||
        !json.contains("answer") || !json["answer"].is_string()) {
      return absl::InvalidArgumentError("needs the texts \"completion\" and \"answer\"");
    }
    // The answer may be the truth itself or a whole solution that ends in "#### truth".
    std::string truth = json["answer"].get<std::string>();
    if (truth.find("####") != std::string::npos) {
      TEMPER_ASSIGN_OR_RETURN(truth, prompts::TruthOf(truth));
    }
    const reward_server::ScoreResult result =
        reward_server::Score(*rule, json["completion"].get<std::string>(), truth);
    nlohmann::ordered_json line = {{"score", static_cast<int>(result.score)},
                                   {"extracted", nullptr}};
    if (result.extracted.has_value()) line["extracted"] = *result.extracted;
    std::printf(
        "%s\n",
        line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    return absl::OkStatus();
  });
}

}  // namespace

CommandBody AddScoreCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "score",
      "Score completions: JSON lines with completion and answer in, score and extracted out");
  auto arguments = std::make_shared<ScoreArguments>();
  command->add_option("--rule", arguments->rule, "strict, flexible or numeric")
      ->capture_default_str();
  command->add_option("file", arguments->file, "JSON lines; - for standard input")
      ->capture_default_str();
  return [arguments] { return ScoreFile(*arguments); };
}

}  // namespace temper::cli
