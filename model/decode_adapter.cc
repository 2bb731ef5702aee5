#include "model/decode_adapter.h"

#include <algorithm>

#include "model/adapter_branch.h"
#include "model/decode_pass.h"

namespace temper::model {

using numerics::Operator;

const DecodeAdapters::Module* DecodeAdapters::Find(Operator op, int layer) const {
  if (modules.empty()) return nullptr;
  const int32_t index = module_of[static_cast<size_t>(layer)][static_cast<size_t>(op)];
  return index < 0 ? nullptr : &modules[static_cast<size_t>(index)];
}

DecodeAdapters PackAdapters(const Parameters& parameters) {
  DecodeAdapters adapters;
  const LoraSpec& spec = parameters.lora;
  if (!spec.enabled()) return adapters;
  adapters.scale = spec.scale();
  adapters.rank = spec.rank;
  adapters.module_of.resize(static_cast<size_t>(parameters.config.num_layers));
  for (auto& of_layer : adapters.module_of) of_layer.fill(-1);
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    const LoraModule& module = spec.modules[i];
    const auto pack = [](const at::Tensor& matrix) {
      return numerics::Pack(matrix.data_ptr<float>(), matrix.size(0), matrix.size(1));
    };
    adapters.module_of[static_cast<size_t>(module.layer)][static_cast<size_t>(module.op)] =
        static_cast<int32_t>(i);
    adapters.modules.push_back({.a = pack(parameters.adapter[2 * i].second),
                                .b = pack(parameters.adapter[2 * i + 1].second)});
  }
  return adapters;
}

void ReserveAdapterScratch(const DecodeAdapters& adapters, const ModelConfig& config, int64_t rows,
                           DecodeScratch* scratch) {
  if (adapters.modules.empty()) return;
  const int64_t widest =
      std::max({config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim});
  const auto grow = [](std::vector<float>& buffer, int64_t floats) {
    if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(static_cast<size_t>(floats));
  };
  grow(scratch->adapter_down, rows * adapters.rank);
  grow(scratch->adapter_up, rows * widest);
}

void AddAdapter(const DecodePass& pass, Operator op, int layer, const float* x, float* y,
                int64_t y_stride, DecodeScratch* scratch) {
  const DecodeAdapters& adapters = pass.weights->adapters;
  const DecodeAdapters::Module* module = adapters.Find(op, layer);
  if (module == nullptr) return;
  const auto rows = static_cast<int64_t>(pass.rows.size());
  AddAdapterBranch({.a = &module->a,
                    .b = &module->b,
                    .scale = adapters.scale,
                    .x = x,
                    .x_stride = module->a.in_features(),
                    .rows = rows,
                    .t = scratch->adapter_down.data(),
                    .u = scratch->adapter_up.data(),
                    .y = y,
                    .y_stride = y_stride},
                   *pass.kernels, [&](float* values, int64_t cols, Operator product) {
                     ApplyRowErrorAt(
                         numerics::AdapterSite(layer, product, op, numerics::TensorRole::kOutput),
                         values, 0, rows, cols, cols, pass.noise, pass.noise.keys,
                         numerics::Direction::kForward, product, layer);
                   });
}

}  // namespace temper::model
