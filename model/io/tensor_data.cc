#include "model/io/tensor_data.h"

#include "model/io/float_formats.h"

namespace temper::model {

size_t StorageBytes(StorageType type) { return type == StorageType::kFloat32 ? 4 : 2; }

std::string_view StorageTypeName(StorageType type) {
  switch (type) {
    case StorageType::kFloat32:
      return "float32";
    case StorageType::kFloat16:
      return "float16";
    case StorageType::kBFloat16:
      return "bfloat16";
  }
  return "float32";
}

void RoundToStorage(StorageType type, std::span<float> values) {
  if (type == StorageType::kFloat32) return;
  for (float& value : values) {
    value = type == StorageType::kFloat16 ? Float16ToFloat32(Float32ToFloat16(value))
                                          : BFloat16ToFloat32(Float32ToBFloat16(value));
  }
}

std::optional<uint64_t> ShapeElements(std::span<const int64_t> shape) {
  uint64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, static_cast<uint64_t>(size), &count)) {
      return std::nullopt;
    }
  }
  return count;
}

TensorViewMap ViewsOf(const TensorMap& tensors) {
  TensorViewMap views;
  for (const auto& [name, tensor] : tensors) {
    views.emplace(name, TensorView{.shape = tensor.shape, .values = tensor.values});
  }
  return views;
}

}  // namespace temper::model
