#pragma once

// A model on disk, opened and checked, whose weights are read one at a time: what is in memory is
// one tensor, whatever the size of the model.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/gguf.h"
#include "model/io/model_config.h"
#include "model/io/safetensors.h"
#include "model/io/tensor_data.h"

namespace temper::model {

struct StoredTensor {
  std::string name;
  std::vector<int64_t> shape;
  // The type that holds its values exactly: the one it is stored in; float32 where a GGUF file
  // stores blocks of integers.
  StorageType storage = StorageType::kFloat32;
};

// Thread-safe once opened: the files are mapped, and their pages read when they are needed.
class ModelReader final {
 public:
  // path: as LoadModel takes it. Everything but the values is checked here: names, shapes, sizes.
  // Errors: those of loader.h.
  static absl::StatusOr<std::unique_ptr<ModelReader>> Open(const std::string& path);

  const ModelConfig& config() const { return config_; }
  // Exactly ExpectedTensors(config()), in that order. What older files store besides (RoPE's
  // constants, a head that is tied) is left out.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // False: a GGUF file.
  bool is_directory() const { return directory_.has_value(); }

  // The tensor in float32, by its Hugging Face name. NotFound if it is none of tensors().
  absl::StatusOr<TensorData> Read(const std::string& name) const;

  // Which weights these are: XXH3-64 over name, 0 byte and float32 bytes of every tensor in order,
  // as HashParameters (model/parameters.h) says of the model in memory.
  absl::StatusOr<uint64_t> HashWeights() const;

 private:
  ModelReader() = default;
  absl::Status OpenDirectory(const std::string& path);
  absl::Status OpenGguf(const std::string& path);

  ModelConfig config_;
  std::vector<StoredTensor> tensors_;
  std::optional<SafetensorsDirectory> directory_;
  std::unique_ptr<GgufFile> gguf_;
};

}  // namespace temper::model
