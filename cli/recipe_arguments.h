#pragma once

// RECIPE key.path=value ..., as `run`, `check`, `schedule` and `sft` take them.

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

struct RecipeArguments {
  std::string recipe;                  // path of the YAML file
  std::vector<std::string> overrides;  // key.path=value
  bool resolved = false;               // the recipe is what an earlier run resolved

  // Declares the positional arguments; both may be left out where `needed` is false, and then the
  // recipe is recipes/quickstart.yaml. A first word with '=' is an override.
  void Declare(CLI::App* command);

  // Works out which word is what, finds the recipe (as given, recipes/NAME.yaml under the current
  // folder or one above the programs, or the resolved.yaml of a run directory) and loads it.
  // InvalidArgument, NotFound.
  absl::StatusOr<v1::RunConfig> Load();

  // The same for a recipe and overrides that come from elsewhere.
  absl::StatusOr<v1::RunConfig> LoadNamed(const std::string& name,
                                          const std::vector<std::string>& assignments);

 private:
  std::vector<std::string> words_;
};

// RUN or the newest folder under runs/ where the word is "latest" or empty. NotFound if there is
// none.
absl::StatusOr<std::string> ResolveRunDirectory(const std::string& word);

}  // namespace temper::cli
