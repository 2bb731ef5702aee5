#pragma once

// Weights as plain memory: no tensor library here.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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

// Bytes of one value: 4 or 2.
size_t StorageBytes(StorageType type);

// "float32", "float16", "bfloat16".
std::string_view StorageTypeName(StorageType type);

// Replaces each value by what a file of this type gives back: rounded to nearest-even.
void RoundToStorage(StorageType type, std::span<float> values);

// Product of a shape, or nullopt if it does not fit in 64 bits or a dimension is negative.
std::optional<uint64_t> ShapeElements(std::span<const int64_t> shape);

// Views of everything in `tensors`; valid while `tensors` is unchanged.
TensorViewMap ViewsOf(const TensorMap& tensors);

}  // namespace temper::model
