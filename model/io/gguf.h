#pragma once

// The GGUF container, versions 2 and 3, little-endian: typed metadata, then tensors.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/mapped_file.h"
#include "model/io/tensor_data.h"

namespace temper::model {

// How a GGUF tensor is stored; the values are those of the format.
enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

// Whether elements are stored in blocks of 32 that share a scale.
constexpr bool IsBlocked(GgufType type) {
  return type == GgufType::kQ4_0 || type == GgufType::kQ4_1 || type == GgufType::kQ8_0;
}

struct GgufTensorRow;  // of the file's tensor table; private to gguf.cc

// One opened file. Thread-safe once opened. Opening reads metadata and the tensor table under
// limits (at most 2^16 metadata entries and tensors, strings of 16 MiB, arrays of 2^24 elements
// that must fit in the bytes left) and checks that each tensor lies inside the file.
class GgufFile final {
 public:
  // A metadata value; integers of every width become int64 or uint64, floats double.
  using Value = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<int64_t>,
                             std::vector<double>, std::vector<std::string>>;

  struct Tensor {
    GgufType type = GgufType::kF32;
    std::vector<int64_t> shape;        // outermost first, as Hugging Face writes it
    std::span<const std::byte> bytes;  // inside the mapping
  };

  // Errors: those of MappedFile::Open; DataLoss, with the file, the byte offset and what was being
  // read, for a file that is truncated or lies; InvalidArgument for a wrong magic or version.
  // A tensor of another type is listed in unsupported() and refused when it is read.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  uint32_t version() const { return version_; }
  const std::map<std::string, Value>& metadata() const { return metadata_; }
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  // Tensors of types this reader cannot dequantize: name -> type number.
  const std::map<std::string, uint32_t>& unsupported() const { return unsupported_; }

  // Typed look-ups. NotFound names the key; InvalidArgument if it is of another type or range.
  absl::StatusOr<std::string> String(std::string_view key) const;
  absl::StatusOr<int64_t> Integer(std::string_view key) const;
  absl::StatusOr<double> Float(std::string_view key) const;
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view key) const;
  bool Has(std::string_view key) const;

  // The tensor dequantized to float32, rows as stored. NotFound; InvalidArgument if unsupported.
  absl::StatusOr<TensorData> Read(const std::string& name) const;

 private:
  explicit GgufFile(std::unique_ptr<MappedFile> file);
  absl::Status Parse();
  // Finds each row of the tensor table, which ends at byte `table_end`, in the data behind it.
  absl::Status PlaceTensors(const std::vector<GgufTensorRow>& rows, uint64_t table_end);

  std::unique_ptr<MappedFile> file_;
  uint32_t version_ = 0;
  std::map<std::string, Value> metadata_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, uint32_t> unsupported_;
};

// Bytes that `elements` values of `type` take; elements must be a multiple of the type's block
// (32 for Q8_0, Q4_0, Q4_1, else 1).
int64_t GgufBytes(GgufType type, int64_t elements);

// Dequantizes `in` into `out` (block layouts and arithmetic of ggml; in.size() ==
// GgufBytes(type, out.size())).
void Dequantize(GgufType type, std::span<const std::byte> in, std::span<float> out);

}  // namespace temper::model
