#pragma once

// The safetensors format: 8 bytes little-endian header length, a JSON header, raw tensors.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/mapped_file.h"
#include "model/io/tensor_data.h"

namespace temper::model {

// One opened file. Thread-safe once opened. Opening checks everything the header claims: its length
// (<= 100 MB, as the reference implementation), that shapes times element size equal the byte
// range, that ranges lie inside the file, do not overlap and leave no hole. So reading a tensor
// allocates at most four times the bytes that are really there (16-bit types widen to float32).
class SafetensorsFile final {
 public:
  struct Entry {
    StorageType type = StorageType::kFloat32;
    std::vector<int64_t> shape;
    std::span<const std::byte> bytes;  // inside the mapping
  };

  // Errors: those of MappedFile::Open; DataLoss with file, tensor and both values where the header
  // lies; InvalidArgument for a dtype other than F32, F16, BF16, by name.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::map<std::string, Entry>& entries() const { return entries_; }

  // The tensor in float32. NotFound if there is none of that name.
  absl::StatusOr<TensorData> Read(const std::string& name) const;

 private:
  explicit SafetensorsFile(std::unique_ptr<MappedFile> file);
  absl::Status ParseHeader();

  std::unique_ptr<MappedFile> file_;
  std::map<std::string, Entry> entries_;
};

// The weights of a Hugging Face directory, opened and checked but left on disk: model.safetensors,
// or the shards that model.safetensors.index.json names (file names inside the directory only).
// Thread-safe once opened. Errors: as above; NotFound if neither file exists; DataLoss if a shard
// lacks a tensor the index promises.
class SafetensorsDirectory final {
 public:
  static absl::StatusOr<SafetensorsDirectory> Open(const std::string& dir);

  const std::map<std::string, SafetensorsFile::Entry>& entries() const { return entries_; }
  // The tensor in float32. NotFound if there is none of that name.
  absl::StatusOr<TensorData> Read(const std::string& name) const;

 private:
  SafetensorsDirectory() = default;
  absl::Status AddFile(const std::string& path);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, SafetensorsFile*> owners_;
  std::map<std::string, SafetensorsFile::Entry> entries_;
};

// All tensors of such a directory. Errors: as above.
absl::StatusOr<TensorMap> ReadSafetensorsDirectory(const std::string& dir);

// Writes tensors in the order of their names, as SafetensorsWriter does (safetensors_writer.h).
// Errors: InvalidArgument if a view's shape and size disagree; those of base/files.h.
absl::Status WriteSafetensors(const std::string& path, const TensorViewMap& tensors,
                              StorageType storage = StorageType::kFloat32);

}  // namespace temper::model
