#pragma once

// Weights as plain memory: no tensor library here.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace temper::model {

// A float32 tensor, row-major, owned. values.size() is the product of shape.
struct TensorData {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// A float32 tensor, row-major, not owned; the memory must outlive the call it is passed to.
struct TensorView {
  std::vector<int64_t> shape;
  std::span<const float> values;
};

// Tensors by Hugging Face name, e.g. "model.layers.3.self_attn.q_proj.weight" [out, in].
using TensorMap = std::map<std::string, TensorData>;
using TensorViewMap = std::map<std::string, TensorView>;

// How a float32 value is stored in a file.
enum class StorageType { kFloat32, kFloat16, kBFloat16 };

// Views of everything in `tensors`; valid while `tensors` is unchanged.
TensorViewMap ViewsOf(const TensorMap& tensors);

}  // namespace temper::model
