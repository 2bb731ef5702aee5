#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "cli/json_lines.h"
#include "cli/recipe_arguments.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct SamplesArguments {
  std::string run;
  uint64_t step = 0;  // 0: the newest
  int limit = 4;      // groups shown; 0: all
};

absl::StatusOr<std::string> SamplesFile(const std::string& run_dir, uint64_t step) {
  if (step > 0) return absl::StrCat(run_dir, "/samples/step_", step, ".jsonl");
  uint64_t newest = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir + "/samples", error)) {
    const std::string name = entry.path().stem().string();
    uint64_t number = 0;
    if (name.rfind("step_", 0) == 0 && absl::SimpleAtoi(name.substr(5), &number))
      newest = std::max(newest, number);
  }
  if (newest == 0)
    return absl::InvalidArgumentError(absl::StrCat("no samples under ", run_dir, "/samples yet"));
  return absl::StrCat(run_dir, "/samples/step_", newest, ".jsonl");
}

std::string Text(const nlohmann::json& json, const char* key) {
  const auto value = json.find(key);
  if (value == json.end() || value->is_null()) return "-";
  return value->is_string() ? value->get<std::string>() : value->dump();
}

void PrintGroup(const nlohmann::json& group, const nlohmann::json& completions) {
  std::printf("\n== group %s  %s  truth %s\n%s\n", Text(group, "group_index").c_str(),
              Text(group, "ending").c_str(), Text(group, "truth").c_str(),
              Text(group, "prompt").c_str());
  int sample = 0;
  for (const nlohmann::json& completion : completions) {
    std::printf("-- sample %d  reward %s  answer %s\n%s\n", sample++,
                Text(completion, "reward").c_str(), Text(completion, "extracted").c_str(),
                Text(completion, "text").c_str());
  }
}

absl::Status Samples(const SamplesArguments& arguments) {
  TEMPER_ASSIGN_OR_RETURN(const std::string run_dir, ResolveRunDirectory(arguments.run));
  TEMPER_ASSIGN_OR_RETURN(const std::string file, SamplesFile(run_dir, arguments.step));
  std::printf("%s\n", file.c_str());
  int groups = 0;
  return ForEachJsonLine(file, [&](const nlohmann::json& group) -> absl::Status {
    const auto completions = group.find("completions");
    if (completions == group.end() || !completions->is_array()) {
      return absl::InvalidArgumentError("is no group of completions");
    }
    if (arguments.limit == 0 || ++groups <= arguments.limit) PrintGroup(group, *completions);
    return absl::OkStatus();
  });
}

}  // namespace

CommandBody AddSamplesCommand(CLI::App* app) {
  CLI::App* command = app->add_subcommand(
      "samples", "Show prompts, completions, rewards and parsed answers of a run");
  auto arguments = std::make_shared<SamplesArguments>();
  command->add_option("run", arguments->run, "run directory (default: the newest under runs/)");
  command->add_option("--step", arguments->step, "step (default: the newest)");
  command->add_option("--groups", arguments->limit, "groups shown; 0: all")->capture_default_str();
  return [arguments] { return Samples(*arguments); };
}

}  // namespace temper::cli
