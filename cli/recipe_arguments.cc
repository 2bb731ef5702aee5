#include "cli/recipe_arguments.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "cli/child_process.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::cli {
namespace {

namespace fs = std::filesystem;

// The current folder, and every folder above the programs.
std::vector<fs::path> SearchFolders() {
  std::vector<fs::path> folders = {fs::current_path()};
  if (const auto programs = ProgramFolder(); programs.ok()) {
    for (fs::path above = *programs; above.has_relative_path(); above = above.parent_path()) {
      folders.push_back(above);
    }
  }
  return folders;
}

// The recipe as a path, or by its short name in a recipes/ folder.
absl::StatusOr<std::string> FindRecipe(const std::string& word) {
  std::error_code error;
  if (fs::is_regular_file(word, error)) return word;
  for (const fs::path& folder : SearchFolders()) {
    for (const fs::path& candidate :
         {folder / word, folder / "recipes" / absl::StrCat(word, ".yaml")}) {
      if (fs::is_regular_file(candidate, error)) return candidate.string();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no recipe ", word, " (a YAML file, or a name in recipes/)"));
}

// The folder of the embedded policy; empty if it is nowhere.
std::string EmbeddedPolicy() {
  std::error_code error;
  for (const fs::path& folder : SearchFolders()) {
    const fs::path candidate = folder / "recipes" / "quickstart";
    if (fs::exists(candidate / "config.json", error)) return fs::absolute(candidate).string();
  }
  return "";
}

}  // namespace

void RecipeArguments::Declare(CLI::App* command) {
  command->add_option("words", words_,
                      "RECIPE.yaml, then key.path=value overrides (default recipe: quickstart)");
}

absl::StatusOr<v1::RunConfig> RecipeArguments::Load() {
  if (words_.empty() || words_.front().find('=') != std::string::npos) {
    return LoadNamed("quickstart", words_);
  }
  return LoadNamed(words_.front(), {words_.begin() + 1, words_.end()});
}

absl::StatusOr<v1::RunConfig> RecipeArguments::LoadNamed(
    const std::string& name, const std::vector<std::string>& assignments) {
  overrides = assignments;
  const std::string file = name + "/resolved.yaml";
  std::error_code error;
  resolved = fs::is_regular_file(file, error);
  TEMPER_ASSIGN_OR_RETURN(recipe, resolved ? absl::StatusOr<std::string>(file) : FindRecipe(name));
  TEMPER_ASSIGN_OR_RETURN(v1::RunConfig config, resolved
                                                    ? config::LoadResolvedConfig(recipe, overrides)
                                                    : config::LoadRunConfig(recipe, overrides));
  if (config.model().path().empty()) config.mutable_model()->set_path(EmbeddedPolicy());
  return config;
}

absl::StatusOr<std::string> ResolveRunDirectory(const std::string& word) {
  if (!word.empty() && word != "latest") {
    std::error_code error;
    if (fs::is_directory(word, error)) return word;
    return absl::InvalidArgumentError(absl::StrCat("no run directory ", word));
  }
  std::string newest;
  fs::file_time_type newest_time = fs::file_time_type::min();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("runs", error)) {
    if (!entry.is_directory(error) || !fs::exists(entry.path() / "resolved.yaml", error)) continue;
    const fs::file_time_type time = fs::last_write_time(entry.path() / "resolved.yaml", error);
    if (time > newest_time) {
      newest_time = time;
      newest = entry.path().string();
    }
  }
  if (newest.empty()) return absl::InvalidArgumentError("no run under runs/; name its folder");
  return newest;
}

}  // namespace temper::cli
