#pragma once

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "model/io/model_config.h"
#include "model/io/tensor_data.h"

namespace temper::model {

// Reads some tensors of the model at `path` alone, by their Hugging Face names; no other byte of
// its weights is touched, and no shard opened that holds none of them. config: that of the model.
// Errors: those of model/io/loader.h; DataLoss also for a name that the model lacks or has in
// another shape.
absl::StatusOr<TensorMap> LoadTensors(const std::string& path, const ModelConfig& config,
                                      const std::set<std::string>& names);

}  // namespace temper::model
