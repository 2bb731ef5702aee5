#pragma once

// Writing a safetensors file tensor by tensor: what is in memory is one tensor.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/tensor_data.h"
#include "services/base/files.h"

namespace temper::model {

// A tensor that will be written: the header comes first, so all of them are known before the bytes.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  StorageType storage = StorageType::kFloat32;
};

// Thread-compatible. The file appears under its name at Commit, 8-byte aligned header, with
// {"format": "pt"} as metadata; without Commit nothing remains. Values are rounded to nearest-even
// for 16-bit storage.
class SafetensorsWriter final {
 public:
  // tensors: in the order their values will be given. Errors: InvalidArgument for a name that comes
  // twice or a shape that is none; those of base/files.h.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(const std::string& path,
                                                                   std::vector<TensorSpec> tensors);

  // The values of the next tensor. InvalidArgument if they are not as many as its shape says, or
  // there is no next one.
  absl::Status Append(std::span<const float> values);

  // FailedPrecondition, naming the first one, if tensors are still to come.
  absl::Status Commit();

 private:
  SafetensorsWriter(std::vector<TensorSpec> tensors, std::unique_ptr<base::AtomicFileWriter> file);

  const std::vector<TensorSpec> tensors_;
  std::unique_ptr<base::AtomicFileWriter> file_;
  size_t next_ = 0;
  std::vector<uint16_t> scratch_;
};

}  // namespace temper::model
