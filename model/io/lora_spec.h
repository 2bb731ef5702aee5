#pragma once

// The shape of low-rank adapters on a model:
//   y = e(x W^T) + b + (alpha / r) (x A^T) B^T        A [r, in], B [out, r]
// Source: Hu et al., 2021, "LoRA", section 4.1, with the scaling of its authors.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/loader.h"
#include "model/io/model_config.h"
#include "numerics/lora_selection.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::model {

// A linear with an adapter.
struct LoraModule {
  numerics::Operator op = numerics::Operator::kQ;  // kQ .. kDown
  int layer = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;

  // "model.layers.3.self_attn.q_proj"
  std::string path() const { return numerics::OperatorPath(op, layer); }
  bool operator==(const LoraModule&) const = default;
};

// A value; without modules there is no adapter.
struct LoraSpec {
  int64_t rank = 0;
  double alpha = 0.0;
  std::vector<LoraModule> modules;  // by layer, then by operator

  bool enabled() const { return !modules.empty(); }
  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
  bool operator==(const LoraSpec&) const = default;
};

// Every linear that can have an adapter: q, k, v, o, gate, up and down of each layer.
std::vector<LoraModule> AdaptableModules(const ModelConfig& config);

// What `selection` chooses of the model; no adapter where it is not enabled. Errors:
// InvalidArgument, a mistake a line, for a pattern that selects none of those linears (lm_head has
// no adapter: its logits are never held whole), for excludes that leave none, and for a rank that
// is not 1 up to the smaller side of each linear or an alpha that is not positive.
absl::StatusOr<LoraSpec> MakeLoraSpec(const ModelConfig& config,
                                      const numerics::LoraSelection& selection);

// Names and shapes of an adapter's tensors, in the order of its modules, A before B:
//   model.layers.3.self_attn.q_proj.lora_A.weight [r, in], .lora_B.weight [out, r]
std::vector<ExpectedTensor> LoraTensors(const LoraSpec& spec);

// What the noise policy needs to know of a model with these adapters.
numerics::ModelShape NoiseShape(const ModelConfig& config, const LoraSpec& spec);

// Number of weights that are trained: those of the adapters, or where there are none of the model.
int64_t TrainedWeights(const ModelConfig& config, const LoraSpec& spec);

}  // namespace temper::model
