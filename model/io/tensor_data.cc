#include "model/io/tensor_data.h"

namespace temper::model {

TensorViewMap ViewsOf(const TensorMap& tensors) {
  TensorViewMap views;
  for (const auto& [name, tensor] : tensors) {
    views.emplace(name, TensorView{.shape = tensor.shape, .values = tensor.values});
  }
  return views;
}

}  // namespace temper::model
