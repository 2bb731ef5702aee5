#include "model/io/peft_adapter.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

constexpr char kConfigFile[] = "/adapter_config.json";
constexpr char kWeightsFile[] = "/adapter_model.safetensors";
constexpr char kPrefix[] = "base_model.model.";
constexpr int64_t kMaxAdapterConfigBytes = 16 << 20;

absl::Status Unsupported(const std::string& dir, std::string_view what) {
  return absl::InvalidArgumentError(base::Cat(dir, kConfigFile, ": ", what, " is not supported"));
}

absl::StatusOr<json::Value> ReadConfig(const std::string& dir) {
  const std::string path = dir + kConfigFile;
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxAdapterConfigBytes));
  return json::ParseObject(text, path);
}

// A field that changes the formula, set to something.
bool Says(const json::Value& config, const char* field) {
  const json::Value value = json::Member(config, field);
  if (value.is_null() || value == false) return false;
  return !((value.is_object() || value.is_array()) && value.empty());
}

absl::Status CheckKind(const std::string& dir, const json::Value& config) {
  if (json::Member(config, "peft_type") != "LORA") return Unsupported(dir, "a peft_type but LORA");
  const json::Value bias = json::Member(config, "bias");
  if (!bias.is_null() && bias != "none") return Unsupported(dir, "bias");
  for (const char* field :
       {"use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern",
        "modules_to_save", "lora_bias", "use_qalora", "use_bdlora", "layer_replication",
        "alora_invocation_tokens", "target_parameters", "trainable_token_indices"}) {
    if (Says(config, field)) return Unsupported(dir, field);
  }
  return absl::OkStatus();
}

// The modules that `tensors` (by our names) adapt, in the order of AdaptableModules.
absl::Status TakeModules(const std::string& dir, const ModelConfig& base, const TensorMap& tensors,
                         LoraSpec* spec) {
  std::set<std::string> known;
  for (const LoraModule& module : AdaptableModules(base)) {
    const std::string a = module.path() + ".lora_A.weight", b = module.path() + ".lora_B.weight";
    if (!tensors.contains(a) && !tensors.contains(b)) continue;
    spec->modules.push_back(module);
    known.insert({a, b});
  }
  for (const auto& [name, tensor] : tensors) {
    if (!known.contains(name)) {
      return absl::InvalidArgumentError(base::Cat(
          dir, kWeightsFile, ": ", kPrefix, name,
          " belongs to no linear of a decoder layer of the base, which alone take adapters"));
    }
  }
  if (spec->modules.empty()) {
    return absl::InvalidArgumentError(base::Cat(dir, kWeightsFile, " adapts no linear"));
  }
  for (const ExpectedTensor& expected : LoraTensors(*spec)) {
    const auto found = tensors.find(expected.name);
    if (found == tensors.end()) {
      return absl::DataLossError(
          base::Cat(dir, kWeightsFile, ": ", kPrefix, expected.name, " is missing"));
    }
    if (found->second.shape != expected.shape) {
      return absl::InvalidArgumentError(
          base::Cat(dir, kWeightsFile, ": ", kPrefix, expected.name, " has shape [",
                    absl::StrJoin(found->second.shape, ", "), "], base and rank ask for [",
                    absl::StrJoin(expected.shape, ", "), "]"));
    }
  }
  return absl::OkStatus();
}

// PEFT's target_modules: a module adapted in all layers by its last name, others by their path.
std::vector<std::string> TargetModules(const LoraSpec& spec, int64_t num_layers) {
  std::map<numerics::Operator, std::vector<std::string>> paths;
  for (const LoraModule& module : spec.modules) paths[module.op].push_back(module.path());
  std::vector<std::string> targets;
  for (const auto& [op, own] : paths) {
    if (static_cast<int64_t>(own.size()) == num_layers) {
      targets.push_back(own.front().substr(own.front().rfind('.') + 1));
    } else {
      targets.insert(targets.end(), own.begin(), own.end());
    }
  }
  return targets;
}

}  // namespace

bool IsPeftAdapter(const std::string& path) { return base::PathExists(path + kConfigFile); }

absl::StatusOr<std::string> BaseOfPeftAdapter(const std::string& dir) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value config, ReadConfig(dir));
  return json::StringOr(config, "base_model_name_or_path", "");
}

absl::StatusOr<PeftAdapter> ReadPeftAdapter(const std::string& dir, const ModelConfig& base) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value config, ReadConfig(dir));
  TEMPER_RETURN_IF_ERROR(CheckKind(dir, config));
  PeftAdapter adapter;
  TEMPER_ASSIGN_OR_RETURN(adapter.base_model,
                          json::StringOr(config, "base_model_name_or_path", ""));
  const json::Value rank = json::Member(config, "r"), alpha = json::Member(config, "lora_alpha");
  if (!rank.is_number_unsigned() || rank.get<uint64_t>() < 1 || rank.get<uint64_t>() > (1u << 20)) {
    return absl::InvalidArgumentError(base::Cat(dir, kConfigFile, ": r is no rank"));
  }
  if (!alpha.is_number() || !(alpha.get<double>() > 0.0)) {
    return absl::InvalidArgumentError(base::Cat(dir, kConfigFile, ": lora_alpha is not positive"));
  }
  adapter.spec.rank = rank.get<int64_t>();
  adapter.spec.alpha = alpha.get<double>();
  TEMPER_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(dir + kWeightsFile));
  for (const auto& [name, entry] : file->entries()) {
    if (!name.starts_with(kPrefix)) {
      return absl::InvalidArgumentError(
          base::Cat(dir, kWeightsFile, ": ", name, " does not begin with ", kPrefix));
    }
    TEMPER_ASSIGN_OR_RETURN(adapter.tensors[name.substr(sizeof(kPrefix) - 1)], file->Read(name));
  }
  TEMPER_RETURN_IF_ERROR(TakeModules(dir, base, adapter.tensors, &adapter.spec));
  return adapter;
}

absl::Status WritePeftAdapter(const std::string& dir, const PeftAdapterViews& adapter,
                              int64_t num_layers) {
  TensorViewMap renamed;
  for (const ExpectedTensor& expected : LoraTensors(adapter.spec)) {
    const auto found = adapter.tensors.find(expected.name);
    if (found == adapter.tensors.end() || found->second.shape != expected.shape) {
      return absl::InvalidArgumentError(
          base::Cat("cannot save ", dir, ": no tensor ", expected.name, " of the adapter's shape"));
    }
    renamed[kPrefix + expected.name] = found->second;
  }
  if (renamed.size() != adapter.tensors.size()) {
    return absl::InvalidArgumentError(
        base::Cat("cannot save ", dir, ": more tensors than the adapter has"));
  }
  const json::Value config = {{"peft_type", "LORA"},
                              {"task_type", "CAUSAL_LM"},
                              {"base_model_name_or_path", adapter.base_model},
                              {"r", adapter.spec.rank},
                              {"lora_alpha", adapter.spec.alpha},
                              {"lora_dropout", 0.0},
                              {"target_modules", TargetModules(adapter.spec, num_layers)},
                              {"bias", "none"},
                              {"fan_in_fan_out", false},
                              {"inference_mode", true}};
  TEMPER_RETURN_IF_ERROR(base::MakeDirectories(dir));
  TEMPER_RETURN_IF_ERROR(
      base::WriteFileAtomically(dir + kConfigFile, base::Cat(config.dump(2), "\n")));
  TEMPER_RETURN_IF_ERROR(WriteSafetensors(dir + kWeightsFile, renamed));
  return base::SyncDirectory(dir);
}

void AddLowRank(std::span<const float> a, std::span<const float> b, int64_t rank, double scale,
                std::span<float> w) {
  const auto in = static_cast<int64_t>(a.size()) / rank;
  const auto out = static_cast<int64_t>(b.size()) / rank;
  std::vector<double> row(static_cast<size_t>(in));
  for (int64_t n = 0; n < out; ++n) {
    std::fill(row.begin(), row.end(), 0.0);
    for (int64_t r = 0; r < rank; ++r) {
      const double factor = scale * static_cast<double>(b[static_cast<size_t>(n * rank + r)]);
      for (int64_t k = 0; k < in; ++k) {
        row[static_cast<size_t>(k)] +=
            factor * static_cast<double>(a[static_cast<size_t>(r * in + k)]);
      }
    }
    for (int64_t k = 0; k < in; ++k) {
      float& weight = w[static_cast<size_t>(n * in + k)];
      weight = static_cast<float>(static_cast<double>(weight) + row[static_cast<size_t>(k)]);
    }
  }
}

}  // namespace temper::model
