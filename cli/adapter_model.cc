#include "cli/adapter_model.h"

#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/model_output.h"
#include "model/adapter_parameters.h"
#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::cli {

std::optional<std::string> FindAdapter(const std::string& path) {
  for (const std::string& dir : {path, path + "/adapter"}) {
    if (model::IsPeftAdapter(dir)) return dir;
  }
  return std::nullopt;
}

absl::StatusOr<AdapterModel> OpenAdapter(const std::string& path, const std::string& base) {
  const std::optional<std::string> dir = FindAdapter(path);
  if (!dir.has_value()) {
    return absl::NotFoundError(
        absl::StrCat(path, " holds no adapter (adapter_config.json, or adapter/ of a checkpoint)"));
  }
  AdapterModel opened = {.dir = std::filesystem::absolute(*dir).string(), .base = base};
  if (base.empty()) {
    TEMPER_ASSIGN_OR_RETURN(opened.base, model::BaseOfPeftAdapter(*dir));
  }
  if (!base::PathExists(opened.base)) {
    return absl::NotFoundError(absl::StrCat("the base of ", *dir, " is not on this host: ",
                                            opened.base.empty() ? "none is named" : opened.base));
  }
  TEMPER_ASSIGN_OR_RETURN(const model::ModelConfig config, model::LoadModelConfig(opened.base));
  TEMPER_ASSIGN_OR_RETURN(opened.adapter, model::ReadPeftAdapter(*dir, config));
  return opened;
}

std::vector<std::string> OverridesFor(const AdapterModel& adapter) {
  const model::LoraSpec& spec = adapter.adapter.spec;
  std::vector<std::string> modules;
  for (const model::LoraModule& module : spec.modules) modules.push_back(module.path());
  return {absl::StrCat("model.path=", adapter.base),
          "trainer.lora.enabled=true",
          absl::StrCat("trainer.lora.adapter=", adapter.dir),
          absl::StrCat("trainer.lora.rank=", spec.rank),
          absl::StrFormat("trainer.lora.alpha=%.17g", spec.alpha),
          absl::StrCat("trainer.lora.target_modules=[", absl::StrJoin(modules, ", "), "]"),
          "trainer.lora.exclude_modules=[]"};
}

absl::StatusOr<model::Parameters> LoadPolicy(const std::string& path) {
  if (!FindAdapter(path).has_value()) {
    TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(path));
    return model::ParametersFromModel(loaded);
  }
  TEMPER_ASSIGN_OR_RETURN(const AdapterModel opened, OpenAdapter(path, ""));
  TEMPER_ASSIGN_OR_RETURN(const model::LoadedModel loaded, model::LoadModel(opened.base));
  TEMPER_ASSIGN_OR_RETURN(const model::Parameters base, model::ParametersFromModel(loaded));
  return model::WithAdapter(base, opened.adapter.spec, opened.adapter.tensors);
}

absl::Status MergeAdapter(const AdapterModel& adapter, const std::string& out) {
  TEMPER_ASSIGN_OR_RETURN(const auto reader, model::ModelReader::Open(adapter.base));
  const model::LoraSpec& spec = adapter.adapter.spec;
  std::map<std::string, std::string> modules;  // by the weight's name
  for (const model::LoraModule& module : spec.modules) {
    modules[module.path() + ".weight"] = module.path();
  }
  return WriteChangedModel(
      *reader, adapter.base, out,
      [&](const model::StoredTensor& stored, model::TensorData& tensor) -> absl::Status {
        const auto module = modules.find(stored.name);
        if (module == modules.end()) return absl::OkStatus();
        const model::TensorMap& tensors = adapter.adapter.tensors;
        model::AddLowRank(tensors.at(module->second + ".lora_A.weight").values,
                          tensors.at(module->second + ".lora_B.weight").values, spec.rank,
                          spec.alpha / static_cast<double>(spec.rank), tensor.values);
        return absl::OkStatus();
      });
}

}  // namespace temper::cli
