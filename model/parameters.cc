#include "model/parameters.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/torch_status.h"
#include "numerics/gaussian.h"
#include "services/base/check.h"
#include "services/base/hash.h"
#include "services/base/random_key.h"
#include "services/base/status_macros.h"

namespace temper::model {
namespace {

std::span<float> Values(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

TensorViewMap ViewsOfAll(const std::vector<std::pair<std::string, at::Tensor>>& named) {
  TensorViewMap views;
  for (const auto& [name, tensor] : named) {
    views[name] = {.shape = {tensor.sizes().begin(), tensor.sizes().end()},
                   .values = Values(tensor)};
  }
  return views;
}

absl::StatusOr<Parameters> Allocate(const ModelConfig& config) {
  TEMPER_RETURN_IF_ERROR(ValidateModelConfig(config));
  return RunTorchFor<Parameters>("allocate a model", [&]() -> absl::StatusOr<Parameters> {
    Parameters parameters;
    parameters.config = config;
    for (const ExpectedTensor& expected : ExpectedTensors(config)) {
      parameters.named.emplace_back(expected.name, at::empty(expected.shape, at::kFloat));
    }
    return parameters;
  });
}

}  // namespace

const at::Tensor* Parameters::Find(std::string_view name) const {
  const auto it = std::find_if(named.begin(), named.end(),
                               [&](const auto& entry) { return entry.first == name; });
  return it == named.end() ? nullptr : &it->second;
}

const at::Tensor& Parameters::Get(std::string_view name) const {
  const at::Tensor* tensor = Find(name);
  TEMPER_CHECK(tensor != nullptr, "a name of ExpectedTensors");
  return *tensor;
}

absl::StatusOr<Parameters> ParametersFromModel(const LoadedModel& model) {
  TEMPER_ASSIGN_OR_RETURN(Parameters parameters, Allocate(model.config));
  for (auto& [name, tensor] : parameters.named) {
    const auto it = model.tensors.find(name);
    if (it == model.tensors.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the model has no tensor ", name));
    }
    const auto sizes = tensor.sizes();
    if (!std::equal(sizes.begin(), sizes.end(), it->second.shape.begin(), it->second.shape.end()) ||
        it->second.values.size() != static_cast<size_t>(tensor.numel())) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(it->second.shape, ", "),
                       "], not [", absl::StrJoin(sizes.begin(), sizes.end(), ", "), "]"));
    }
    std::copy(it->second.values.begin(), it->second.values.end(), Values(tensor).begin());
  }
  return parameters;
}

absl::StatusOr<Parameters> ZeroParameters(const ModelConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(Parameters parameters, Allocate(config));
  for (auto& [name, tensor] : parameters.named) {
    const std::span<float> values = Values(tensor);
    std::fill(values.begin(), values.end(), 0.0f);
  }
  return parameters;
}

absl::StatusOr<Parameters> InitializeParameters(const ModelConfig& config, uint64_t seed) {
  TEMPER_ASSIGN_OR_RETURN(Parameters parameters, Allocate(config));
  const uint64_t key = base::RandomKey(seed, base::Purpose::kWeightInit, 0);
  const auto deviation = static_cast<float>(config.initializer_range);
  for (size_t i = 0; i < parameters.named.size(); ++i) {
    const auto& [name, tensor] = parameters.named[i];
    const std::span<float> values = Values(tensor);
    if (tensor.dim() == 2) {
      numerics::FillGaussian(values.data(), tensor.numel(), key, static_cast<uint32_t>(i));
      for (float& value : values) value *= deviation;
    } else {
      std::fill(values.begin(), values.end(), absl::EndsWith(name, ".bias") ? 0.0f : 1.0f);
    }
  }
  return parameters;
}

Parameters CloneParameters(const Parameters& parameters) {
  Parameters copy = parameters;
  for (auto& [name, tensor] : copy.trained()) {
    at::Tensor clone = at::empty(tensor.sizes(), at::kFloat);
    std::memcpy(clone.data_ptr<float>(), tensor.data_ptr<float>(),
                static_cast<size_t>(tensor.numel()) * sizeof(float));
    tensor = std::move(clone);
  }
  return copy;
}

TensorViewMap ViewsOf(const Parameters& parameters) { return ViewsOfAll(parameters.named); }

std::vector<ExpectedTensor> TrainedTensors(const Parameters& parameters) {
  return parameters.lora.enabled() ? LoraTensors(parameters.lora)
                                   : ExpectedTensors(parameters.config);
}

TensorViewMap TrainedViewsOf(const Parameters& parameters) {
  return ViewsOfAll(parameters.trained());
}

std::map<std::string, std::span<float>> MutableViewsOf(Parameters& parameters) {
  std::map<std::string, std::span<float>> views;
  for (auto& [name, tensor] : parameters.trained()) views[name] = Values(tensor);
  return views;
}

uint64_t HashParameters(const Parameters& parameters) {
  base::StreamHash hash;
  for (const auto& [name, tensor] : parameters.named) {
    hash.Update(name.c_str(), name.size() + 1);
    hash.Update(tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel()) * sizeof(float));
  }
  return hash.Digest64();
}

int64_t CountWeights(const Parameters& parameters) {
  int64_t count = 0;
  for (const auto& [name, tensor] : parameters.named) count += tensor.numel();
  return count;
}

}  // namespace temper::model
