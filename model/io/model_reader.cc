#include "model/io/model_reader.h"

#include <filesystem>
#include <utility>

#include "model/io/gguf_model.h"
#include "model/io/loader.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

// Older files store these besides the weights.
bool IsRedundant(const ModelConfig& config, const std::string& name) {
  return (config.tie_word_embeddings && name == "lm_head.weight") ||
         name.ends_with(".rotary_emb.inv_freq");
}

StorageType StorageOf(GgufType type) {
  switch (type) {
    case GgufType::kF16:
      return StorageType::kFloat16;
    case GgufType::kBF16:
      return StorageType::kBFloat16;
    default:
      return StorageType::kFloat32;
  }
}

}  // namespace

absl::Status ModelReader::OpenDirectory(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(config_, LoadModelConfig(path));
  TEMPER_ASSIGN_OR_RETURN(directory_, SafetensorsDirectory::Open(path));
  TensorShapes shapes;
  for (const auto& [name, entry] : directory_->entries()) {
    if (!IsRedundant(config_, name)) shapes.emplace(name, entry.shape);
  }
  const absl::Status complete = CheckTensors(config_, shapes);
  if (!complete.ok()) return base::Annotate(complete, path);
  for (ExpectedTensor& expected : ExpectedTensors(config_)) {
    const StorageType storage = directory_->entries().at(expected.name).type;
    tensors_.push_back({std::move(expected.name), std::move(expected.shape), storage});
  }
  return absl::OkStatus();
}

absl::Status ModelReader::OpenGguf(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(gguf_, GgufFile::Open(path));
  absl::StatusOr<ModelConfig> config = ModelConfigFromGguf(*gguf_);
  if (!config.ok()) return base::Annotate(config.status(), path);
  config_ = *std::move(config);
  const absl::Status complete = CheckGgufTensors(*gguf_, config_);
  if (!complete.ok()) return base::Annotate(complete, path);
  for (ExpectedTensor& expected : ExpectedTensors(config_)) {
    const StorageType storage = StorageOf(gguf_->tensors().at(GgufName(expected.name)).type);
    tensors_.push_back({std::move(expected.name), std::move(expected.shape), storage});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ModelReader>> ModelReader::Open(const std::string& path) {
  std::unique_ptr<ModelReader> reader(new ModelReader);
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    TEMPER_RETURN_IF_ERROR(reader->OpenDirectory(path));
  } else {
    TEMPER_RETURN_IF_ERROR(reader->OpenGguf(path));
  }
  return reader;
}

absl::StatusOr<TensorData> ModelReader::Read(const std::string& name) const {
  return is_directory() ? directory_->Read(name) : TensorFromGguf(*gguf_, config_, name);
}

absl::StatusOr<uint64_t> ModelReader::HashWeights() const {
  base::StreamHash hash;
  for (const StoredTensor& stored : tensors_) {
    TEMPER_ASSIGN_OR_RETURN(const TensorData tensor, Read(stored.name));
    hash.Update(stored.name.c_str(), stored.name.size() + 1);
    hash.Update(tensor.values.data(), tensor.values.size() * sizeof(float));
  }
  return hash.Digest64();
}

}  // namespace temper::model
