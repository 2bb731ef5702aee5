#pragma once

// The weights of a model as float32 tensors by Hugging Face name, in the order of
// ExpectedTensors(config), and those of its adapters where it has some. This is the form that
// engines, optimizer, checkpoints and broadcasts share; engines pack copies of their own and never
// write here.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/loader.h"
#include "model/io/lora_spec.h"
#include "model/io/model_config.h"
#include "model/io/tensor_data.h"

namespace temper::model {

// Thread-compatible: many readers, or one writer. Copies share tensor memory (CloneParameters does
// not).
struct Parameters {
  ModelConfig config;
  // Exactly ExpectedTensors(config): names, order, shapes. CPU, float32, contiguous, 64-byte
  // aligned. They carry no gradient history; TrainModel marks its own as requiring gradients.
  std::vector<std::pair<std::string, at::Tensor>> named;
  // Low-rank adapters (model/adapter_parameters.h). With them `named` is frozen: never written,
  // shared by copies.
  LoraSpec lora;
  std::vector<std::pair<std::string, at::Tensor>> adapter;  // LoraTensors(lora), as `named`

  // What training changes, versions carry and an optimizer has moments of.
  std::vector<std::pair<std::string, at::Tensor>>& trained() {
    return lora.enabled() ? adapter : named;
  }
  const std::vector<std::pair<std::string, at::Tensor>>& trained() const {
    return lora.enabled() ? adapter : named;
  }

  // Null if there is no such tensor.
  const at::Tensor* Find(std::string_view name) const;
  // For names that ExpectedTensors(config) holds; another name is our own bug and ends the process.
  const at::Tensor& Get(std::string_view name) const;
};

// Copies a model that was read from disk.
// Errors: InvalidArgument if tensors and configuration do not match (names the tensor).
absl::StatusOr<Parameters> ParametersFromModel(const LoadedModel& model);

// Fresh weights: matrices and embeddings N(0, initializer_range^2), biases 0, norms 1. Every number
// is keyed by (base::Purpose::kWeightInit, seed), site = index of the tensor in
// ExpectedTensors(config), element = flat index, so one seed gives one model on every machine.
// Errors: InvalidArgument for a configuration that ValidateModelConfig refuses.
absl::StatusOr<Parameters> InitializeParameters(const ModelConfig& config, uint64_t seed);

// All tensors present and zero: memory to receive weights into. Errors as InitializeParameters.
absl::StatusOr<Parameters> ZeroParameters(const ModelConfig& config);

// A deep copy of what is trained, without gradients. A frozen base is shared with the original.
Parameters CloneParameters(const Parameters& parameters);

// Views of the model's own tensors for saving (HuggingFaceModel::tensors) and for reading bytes;
// valid while the tensors live.
TensorViewMap ViewsOf(const Parameters& parameters);
// Names and shapes of what is trained, in order, and views of it.
std::vector<ExpectedTensor> TrainedTensors(const Parameters& parameters);
TensorViewMap TrainedViewsOf(const Parameters& parameters);
// The memory of what is trained for writing, by name.
std::map<std::string, std::span<float>> MutableViewsOf(Parameters& parameters);

// XXH3-64 over name, 0 byte and little-endian bytes of every tensor of the model in order, without
// adapters.
uint64_t HashParameters(const Parameters& parameters);

// Number of weights, without adapters.
int64_t CountWeights(const Parameters& parameters);

}  // namespace temper::model
