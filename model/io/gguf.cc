#include "model/io/gguf.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "model/io/gguf_values.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {

// A row of the tensor table, before its bytes are known.
struct GgufTensorRow {
  std::string name;
  uint32_t type = 0;
  std::vector<int64_t> shape;
  uint64_t offset = 0;
};

namespace {

constexpr uint64_t kMaxEntries = uint64_t{1} << 16;
constexpr uint32_t kMaxDimensions = 4;  // ggml's own limit
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 16;

bool IsSupported(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16:
    case GgufType::kQ4_0:
    case GgufType::kQ4_1:
    case GgufType::kQ8_0:
      return true;
  }
  return false;
}

absl::StatusOr<GgufTensorRow> ReadTensorRow(GgufCursor& cursor) {
  GgufTensorRow row;
  TEMPER_ASSIGN_OR_RETURN(row.name, cursor.ReadString("the name of a tensor"));
  TEMPER_ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.Read<uint32_t>("a tensor's rank"));
  if (dimensions == 0 || dimensions > kMaxDimensions) {
    return cursor.Lies(base::Cat("tensor ", row.name, " claims ", dimensions, " dimensions"));
  }
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    TEMPER_ASSIGN_OR_RETURN(const uint64_t size, cursor.Read<uint64_t>("a tensor's shape"));
    if (size == 0 || __builtin_mul_overflow(elements, size, &elements) ||
        elements > (uint64_t{1} << 48)) {
      return cursor.Lies(base::Cat("tensor ", row.name, " claims a dimension of ", size));
    }
    row.shape.push_back(static_cast<int64_t>(size));
  }
  std::reverse(row.shape.begin(), row.shape.end());  // GGUF writes the innermost first
  TEMPER_ASSIGN_OR_RETURN(row.type, cursor.Read<uint32_t>("a tensor's type"));
  TEMPER_ASSIGN_OR_RETURN(row.offset, cursor.Read<uint64_t>("a tensor's offset"));
  return row;
}

int64_t ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

// Finds the bytes of `row` in the data part of the file.
absl::StatusOr<GgufFile::Tensor> PlaceTensor(const GgufTensorRow& row,
                                             std::span<const std::byte> data, uint64_t alignment,
                                             const std::string& path) {
  GgufFile::Tensor tensor{.type = static_cast<GgufType>(row.type), .shape = row.shape};
  if (row.offset % alignment != 0) {
    return absl::DataLossError(base::Cat(path, ": tensor ", row.name, " lies at offset ",
                                         row.offset, ", not a multiple of ", alignment));
  }
  if (IsBlocked(tensor.type) && row.shape.back() % 32 != 0) {
    return absl::DataLossError(base::Cat(path, ": tensor ", row.name, " has rows of ",
                                         row.shape.back(), " values, not whole blocks of 32"));
  }
  const uint64_t bytes = static_cast<uint64_t>(GgufBytes(tensor.type, ElementCount(row.shape)));
  if (row.offset > data.size() || bytes > data.size() - row.offset) {
    return absl::DataLossError(base::Cat(
        path, ": tensor ", row.name, " [", absl::StrJoin(row.shape, ", "), "] needs bytes ",
        row.offset, " to ", row.offset + bytes, " of the data, the file has ", data.size()));
  }
  tensor.bytes = data.subspan(row.offset, bytes);
  return tensor;
}

absl::Status WrongType(const std::string& path, std::string_view key) {
  return absl::InvalidArgumentError(base::Cat(path, ": metadata ", key, " has the wrong type"));
}

}  // namespace

GgufFile::GgufFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::unique_ptr<GgufFile> file(new GgufFile(std::move(mapped)));
  TEMPER_RETURN_IF_ERROR(file->Parse());
  return file;
}

absl::Status GgufFile::Parse() {
  const std::string& path = file_->path();
  GgufCursor cursor(file_->bytes(), path);
  TEMPER_ASSIGN_OR_RETURN(const uint32_t magic, cursor.Read<uint32_t>("the magic number"));
  if (magic != 0x46554747u) {  // "GGUF"
    return absl::InvalidArgumentError(base::Cat(path, " is not a GGUF file"));
  }
  TEMPER_ASSIGN_OR_RETURN(version_, cursor.Read<uint32_t>("the version"));
  if (version_ != 2 && version_ != 3) {
    return absl::InvalidArgumentError(
        base::Cat(path, ": GGUF version ", version_, " is not supported (2 and 3 are)"));
  }
  TEMPER_ASSIGN_OR_RETURN(const uint64_t tensor_count, cursor.Read<uint64_t>("the tensor count"));
  TEMPER_ASSIGN_OR_RETURN(const uint64_t entry_count, cursor.Read<uint64_t>("the entry count"));
  if (tensor_count > kMaxEntries || entry_count > kMaxEntries) {
    return cursor.Lies(base::Cat("the header claims ", tensor_count, " tensors and ", entry_count,
                                 " metadata entries, ", kMaxEntries, " of each are allowed"));
  }
  for (uint64_t i = 0; i < entry_count; ++i) {
    TEMPER_ASSIGN_OR_RETURN(const std::string key, cursor.ReadString("a metadata key"));
    TEMPER_ASSIGN_OR_RETURN(Value value, ReadGgufValue(cursor, base::Cat("metadata ", key)));
    if (!metadata_.emplace(key, std::move(value)).second) {
      return cursor.Lies(base::Cat("metadata ", key, " stands there twice"));
    }
  }
  std::vector<GgufTensorRow> rows;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    TEMPER_ASSIGN_OR_RETURN(GgufTensorRow row, ReadTensorRow(cursor));
    rows.push_back(std::move(row));
  }
  return PlaceTensors(rows, cursor.offset());
}

absl::Status GgufFile::PlaceTensors(const std::vector<GgufTensorRow>& rows, uint64_t table_end) {
  const std::string& path = file_->path();
  uint64_t alignment = kDefaultAlignment;
  if (Has("general.alignment")) {
    TEMPER_ASSIGN_OR_RETURN(const int64_t stored, Integer("general.alignment"));
    if (stored < 8 || stored > int64_t{kMaxAlignment} || (stored & (stored - 1)) != 0) {
      return absl::DataLossError(base::Cat(path, ": general.alignment is ", stored));
    }
    alignment = static_cast<uint64_t>(stored);
  }
  const uint64_t begin = (table_end + alignment - 1) / alignment * alignment;
  const std::span<const std::byte> data =
      file_->bytes().subspan(std::min<uint64_t>(begin, file_->bytes().size()));
  for (const GgufTensorRow& row : rows) {
    if (tensors_.contains(row.name) || unsupported_.contains(row.name)) {
      return absl::DataLossError(base::Cat(path, ": tensor ", row.name, " stands there twice"));
    }
    if (!IsSupported(row.type)) {
      unsupported_.emplace(row.name, row.type);
      continue;
    }
    TEMPER_ASSIGN_OR_RETURN(Tensor tensor, PlaceTensor(row, data, alignment, path));
    tensors_.emplace(row.name, std::move(tensor));
  }
  return absl::OkStatus();
}

bool GgufFile::Has(std::string_view key) const { return metadata_.contains(std::string(key)); }

namespace {

// The value under `key` as a T.
template <typename T>
absl::StatusOr<T> Find(const std::map<std::string, GgufFile::Value>& metadata, std::string_view key,
                       const std::string& path) {
  const auto found = metadata.find(std::string(key));
  if (found == metadata.end()) {
    return absl::NotFoundError(base::Cat(path, " has no metadata ", key));
  }
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) return WrongType(path, key);
  return *value;
}

}  // namespace

absl::StatusOr<std::string> GgufFile::String(std::string_view key) const {
  return Find<std::string>(metadata_, key, file_->path());
}

absl::StatusOr<int64_t> GgufFile::Integer(std::string_view key) const {
  const auto found = metadata_.find(std::string(key));
  if (found != metadata_.end() && std::holds_alternative<int64_t>(found->second)) {
    return std::get<int64_t>(found->second);
  }
  TEMPER_ASSIGN_OR_RETURN(const uint64_t value, Find<uint64_t>(metadata_, key, file_->path()));
  if (value > uint64_t{INT64_MAX}) return WrongType(file_->path(), key);
  return static_cast<int64_t>(value);
}

absl::StatusOr<double> GgufFile::Float(std::string_view key) const {
  return Find<double>(metadata_, key, file_->path());
}

absl::StatusOr<std::vector<std::string>> GgufFile::Strings(std::string_view key) const {
  return Find<std::vector<std::string>>(metadata_, key, file_->path());
}

absl::StatusOr<std::vector<int64_t>> GgufFile::Integers(std::string_view key) const {
  return Find<std::vector<int64_t>>(metadata_, key, file_->path());
}

absl::StatusOr<TensorData> GgufFile::Read(const std::string& name) const {
  const auto refused = unsupported_.find(name);
  if (refused != unsupported_.end()) {
    return absl::InvalidArgumentError(
        base::Cat(file_->path(), ": tensor ", name, " has ggml type ", refused->second,
                  ", which is not supported (F32, F16, BF16, Q8_0, Q4_0, Q4_1 are)"));
  }
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(base::Cat(file_->path(), " has no tensor ", name));
  }
  const Tensor& stored = found->second;
  TensorData tensor{.shape = stored.shape, .values = {}};
  tensor.values.resize(static_cast<size_t>(ElementCount(stored.shape)));
  Dequantize(stored.type, stored.bytes, tensor.values);
  return tensor;
}

}  // namespace temper::model
