#include "model/adapter_parameters.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/torch_status.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

// Draws of an adapter, apart from those of a model (scope 0).
constexpr uint64_t kAdapterScope = 1;

std::span<float> Values(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

void FillUniform(std::span<float> values, double bound, uint64_t key, uint32_t site) {
  for (size_t i = 0; i < values.size(); i += 4) {
    const auto words = base::Philox({static_cast<uint32_t>(i / 4), 0, site, 0}, key);
    for (size_t k = 0; k < 4 && i + k < values.size(); ++k) {
      values[i + k] = static_cast<float>((2.0 * base::UniformFromWord(words[k]) - 1.0) * bound);
    }
  }
}

absl::Status CheckModules(const ModelConfig& config, const LoraSpec& spec) {
  const std::vector<LoraModule> known = AdaptableModules(config);
  for (const LoraModule& module : spec.modules) {
    if (std::find(known.begin(), known.end(), module) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat("an adapter on ", module.path(), " [",
                                                     module.out_features, ", ", module.in_features,
                                                     "], which the model has not"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Parameters> WithZeroAdapter(const Parameters& base, const LoraSpec& spec) {
  TEMPER_RETURN_IF_ERROR(CheckModules(base.config, spec));
  return RunTorchFor<Parameters>("make adapters", [&]() -> absl::StatusOr<Parameters> {
    Parameters adapted = base;
    adapted.lora = spec;
    adapted.adapter.clear();
    for (const ExpectedTensor& tensor : LoraTensors(spec)) {
      adapted.adapter.emplace_back(tensor.name, at::zeros(tensor.shape, at::kFloat));
    }
    return adapted;
  });
}

absl::StatusOr<Parameters> WithFreshAdapter(const Parameters& base, const LoraSpec& spec,
                                            uint64_t seed) {
  TEMPER_ASSIGN_OR_RETURN(Parameters adapted, WithZeroAdapter(base, spec));
  const uint64_t key = base::RandomKey(seed, base::Purpose::kWeightInit, kAdapterScope);
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    const LoraModule& module = spec.modules[i];
    FillUniform(Values(adapted.adapter[2 * i].second),
                1.0 / std::sqrt(static_cast<double>(module.in_features)), key,
                numerics::AdapterSite(module.layer, numerics::Operator::kLoraA, module.op,
                                      numerics::TensorRole::kOutput));
  }
  return adapted;
}

absl::StatusOr<Parameters> WithAdapter(const Parameters& base, const LoraSpec& spec,
                                       const TensorMap& tensors) {
  TEMPER_ASSIGN_OR_RETURN(Parameters adapted, WithZeroAdapter(base, spec));
  for (auto& [name, tensor] : adapted.adapter) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the adapter has no tensor ", name));
    }
    const auto sizes = tensor.sizes();
    const std::vector<int64_t>& shape = found->second.shape;
    if (!std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end())) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(shape, ", "), "], not [",
                       absl::StrJoin(sizes.begin(), sizes.end(), ", "), "]"));
    }
    std::copy(found->second.values.begin(), found->second.values.end(), Values(tensor).begin());
  }
  if (tensors.size() != adapted.adapter.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the adapter has ", tensors.size(), " tensors, not ", adapted.adapter.size()));
  }
  return adapted;
}

absl::StatusOr<Parameters> ZeroLike(const Parameters& parameters) {
  if (!parameters.lora.enabled()) return ZeroParameters(parameters.config);
  return WithZeroAdapter(parameters, parameters.lora);
}

}  // namespace temper::model
