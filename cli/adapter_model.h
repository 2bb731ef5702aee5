#pragma once

// Adapters on disk, as the commands take them: the PEFT directory itself, or a checkpoint of a run
// that trains adapters (checkpoints/step_N), which holds one.

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/peft_adapter.h"
#include "model/parameters.h"

namespace temper::cli {

struct AdapterModel {
  std::string dir;   // the PEFT directory, absolute
  std::string base;  // Hugging Face directory or GGUF file
  model::PeftAdapter adapter;
};

// The PEFT directory that `path` is or holds; nullopt: neither.
std::optional<std::string> FindAdapter(const std::string& path);

// Reads the adapter that `path` is or holds. base: the model it acts on; empty: what the adapter
// names. Errors: NotFound if there is no adapter, or its base is not there; those of
// ReadPeftAdapter.
absl::StatusOr<AdapterModel> OpenAdapter(const std::string& path, const std::string& base);

// The overrides that make a run begin with this policy.
std::vector<std::string> OverridesFor(const AdapterModel& adapter);

// The policy at `path`: a model, or an adapter on the base that it names.
absl::StatusOr<model::Parameters> LoadPolicy(const std::string& path);

// Writes `out`: the base with W + (alpha / r) B A in place of W, in the type each tensor is stored
// in, so a plain model (peft: merge_and_unload). Errors: those of OpenAdapter and
// WriteChangedModel.
absl::Status MergeAdapter(const AdapterModel& adapter, const std::string& out);

}  // namespace temper::cli
