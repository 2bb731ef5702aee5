#include "model/io/lora_spec.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/str_join.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

using numerics::Operator;

bool Selects(const std::string& pattern, const LoraModule& module) {
  return numerics::PatternSelects(pattern, module.op, module.layer);
}

// The mistake of a pattern that selects none of `modules`; empty: it selects one.
std::string WhyNothing(std::string_view field, const std::string& pattern,
                       const std::vector<LoraModule>& modules) {
  if (std::any_of(modules.begin(), modules.end(),
                  [&](const LoraModule& module) { return Selects(pattern, module); })) {
    return "";
  }
  std::string why = base::Cat("trainer.lora.", field, ": '", pattern,
                              "' selects no linear of a decoder layer of this model");
  const bool head = numerics::PatternSelects(pattern, Operator::kLmHead, numerics::kNoLayer);
  return head ? base::Cat(why, "; lm_head takes no adapter") : why;
}

// What of a model beside its adaptable linears an exclude may name: it is left out in any case.
bool NamesWhatNeverAdapts(const std::string& pattern) {
  return numerics::PatternSelects(pattern, Operator::kLmHead, numerics::kNoLayer) ||
         numerics::PathMatches(pattern, "model.embed_tokens");
}

int64_t Elements(const std::vector<ExpectedTensor>& tensors) {
  int64_t total = 0;
  for (const ExpectedTensor& tensor : tensors) {
    int64_t elements = 1;
    for (const int64_t side : tensor.shape) elements *= side;
    total += elements;
  }
  return total;
}

}  // namespace

std::vector<LoraModule> AdaptableModules(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t query = config.num_heads * config.head_dim;
  const int64_t key_value = config.num_kv_heads * config.head_dim;
  const int64_t inner = config.intermediate_size;
  std::vector<LoraModule> modules;
  for (int layer = 0; layer < static_cast<int>(config.num_layers); ++layer) {
    modules.push_back({Operator::kQ, layer, hidden, query});
    modules.push_back({Operator::kK, layer, hidden, key_value});
    modules.push_back({Operator::kV, layer, hidden, key_value});
    modules.push_back({Operator::kO, layer, query, hidden});
    modules.push_back({Operator::kGate, layer, hidden, inner});
    modules.push_back({Operator::kUp, layer, hidden, inner});
    modules.push_back({Operator::kDown, layer, inner, hidden});
  }
  return modules;
}

absl::StatusOr<LoraSpec> MakeLoraSpec(const ModelConfig& config,
                                      const numerics::LoraSelection& selection) {
  if (!selection.enabled) return LoraSpec();
  const std::vector<LoraModule> all = AdaptableModules(config);
  std::vector<std::string> mistakes;
  for (const std::string& pattern : selection.target_modules) {
    mistakes.push_back(WhyNothing("target_modules", pattern, all));
  }
  for (const std::string& pattern : selection.exclude_modules) {
    if (NamesWhatNeverAdapts(pattern)) continue;
    mistakes.push_back(WhyNothing("exclude_modules", pattern, all));
  }
  std::erase(mistakes, "");
  LoraSpec spec = {.rank = selection.rank, .alpha = selection.alpha, .modules = {}};
  int64_t largest_rank = INT64_MAX;
  for (const LoraModule& module : all) {
    const auto selected = [&](const std::string& pattern) { return Selects(pattern, module); };
    const auto& targets = selection.target_modules;
    const auto& excludes = selection.exclude_modules;
    if (!targets.empty() && std::none_of(targets.begin(), targets.end(), selected)) continue;
    if (std::any_of(excludes.begin(), excludes.end(), selected)) continue;
    largest_rank = std::min({largest_rank, module.in_features, module.out_features});
    spec.modules.push_back(module);
  }
  if (spec.modules.empty() && mistakes.empty()) {
    mistakes.push_back("trainer.lora: targets and excludes leave no linear to adapt");
  }
  if (!spec.modules.empty() && (spec.rank < 1 || spec.rank > largest_rank)) {
    mistakes.push_back(base::Cat("trainer.lora.rank: ", spec.rank, " is outside 1 to ",
                                 largest_rank, ", the smallest side of a linear it adapts"));
  }
  if (!(spec.alpha > 0.0) || !std::isfinite(spec.alpha)) {
    mistakes.push_back(base::Cat("trainer.lora.alpha: ", spec.alpha, " is not positive"));
  }
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  return spec;
}

std::vector<ExpectedTensor> LoraTensors(const LoraSpec& spec) {
  std::vector<ExpectedTensor> tensors;
  for (const LoraModule& module : spec.modules) {
    tensors.push_back({module.path() + ".lora_A.weight", {spec.rank, module.in_features}});
    tensors.push_back({module.path() + ".lora_B.weight", {module.out_features, spec.rank}});
  }
  return tensors;
}

numerics::ModelShape NoiseShape(const ModelConfig& config, const LoraSpec& spec) {
  numerics::ModelShape shape{.num_layers = static_cast<int>(config.num_layers),
                             .qk_norm = config.qk_norm};
  for (const LoraModule& module : spec.modules) shape.lora_layers.insert(module.layer);
  return shape;
}

int64_t TrainedWeights(const ModelConfig& config, const LoraSpec& spec) {
  return Elements(spec.enabled() ? LoraTensors(spec) : ExpectedTensors(config));
}

}  // namespace temper::model
