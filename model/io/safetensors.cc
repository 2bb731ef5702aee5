#include "model/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_join.h"
#include "model/io/float_formats.h"
#include "model/io/json.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

static_assert(std::endian::native == std::endian::little, "file formats here are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;
constexpr size_t kMaxDimensions = 8;

std::optional<StorageType> ParseType(std::string_view name) {
  if (name == "F32") return StorageType::kFloat32;
  if (name == "F16") return StorageType::kFloat16;
  if (name == "BF16") return StorageType::kBFloat16;
  return std::nullopt;
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const json::Value& value) {
  if (!value.is_array() || value.size() > kMaxDimensions) {
    return absl::DataLossError(base::Cat("its shape is ", json::Excerpt(value)));
  }
  std::vector<int64_t> shape;
  for (const json::Value& size : value) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > uint64_t{INT64_MAX}) {
      return absl::DataLossError(base::Cat("its shape is ", json::Excerpt(value)));
    }
    shape.push_back(size.get<int64_t>());
  }
  return shape;
}

// One header entry, checked against the size of the file's data part.
absl::StatusOr<SafetensorsFile::Entry> ParseEntry(const json::Value& value,
                                                  std::span<const std::byte> data) {
  SafetensorsFile::Entry entry;
  TEMPER_ASSIGN_OR_RETURN(const std::string type_name, json::String(value, "dtype"));
  const std::optional<StorageType> type = ParseType(type_name);
  if (!type.has_value()) {
    return absl::InvalidArgumentError(
        base::Cat("its dtype ", type_name, " is not supported (F32, F16, BF16 are)"));
  }
  entry.type = *type;
  TEMPER_ASSIGN_OR_RETURN(entry.shape, ParseShape(json::Member(value, "shape")));
  const json::Value& range = json::Member(value, "data_offsets");
  if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() ||
      !range[1].is_number_unsigned()) {
    return absl::DataLossError(base::Cat("its data_offsets are ", json::Excerpt(range)));
  }
  const uint64_t begin = range[0].get<uint64_t>();
  const uint64_t end = range[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return absl::DataLossError(base::Cat("its bytes ", begin, " to ", end,
                                         " do not lie in the file's ", data.size(),
                                         " bytes of data"));
  }
  const std::optional<uint64_t> count = ShapeElements(entry.shape);
  uint64_t expected = 0;
  if (!count.has_value() || __builtin_mul_overflow(*count, StorageBytes(entry.type), &expected) ||
      expected != end - begin) {
    return absl::DataLossError(base::Cat("shape [", absl::StrJoin(entry.shape, ", "), "] of ",
                                         type_name, " does not take the ", end - begin,
                                         " bytes the header gives it"));
  }
  entry.bytes = data.subspan(begin, end - begin);
  return entry;
}

// Entries sorted by where they lie must follow one another without gap or overlap.
absl::Status CheckCoverage(const std::map<std::string, SafetensorsFile::Entry>& entries,
                           std::span<const std::byte> data, const std::string& path) {
  std::vector<std::pair<std::span<const std::byte>, std::string_view>> ranges;
  for (const auto& [name, entry] : entries) ranges.emplace_back(entry.bytes, name);
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const std::byte* position = data.data();
  for (const auto& [range, name] : ranges) {
    if (range.data() != position) {
      return absl::DataLossError(
          base::Cat(path, ": tensor ", name, " begins at byte ", range.data() - data.data(),
                    " of the data, but the tensors before it end at ", position - data.data()));
    }
    position = range.data() + range.size();
  }
  if (position != data.data() + data.size()) {
    return absl::DataLossError(base::Cat(path, ": tensors end at byte ", position - data.data(),
                                         " of ", data.size(), " bytes of data"));
  }
  return absl::OkStatus();
}

// Widens stored values to float32.
void Widen(StorageType type, std::span<const std::byte> bytes, std::span<float> out) {
  if (out.empty()) return;  // of a tensor without elements: memcpy takes no null pointer
  if (type == StorageType::kFloat32) {
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof(bits));
    out[i] = type == StorageType::kFloat16 ? Float16ToFloat32(bits) : BFloat16ToFloat32(bits);
  }
}

// A shard's name must be a plain file name: an index may not point outside its directory.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// The shards of an index: file name -> the tensors it promises there.
absl::StatusOr<std::map<std::string, std::vector<std::string>>> ReadIndex(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxIndexBytes));
  TEMPER_ASSIGN_OR_RETURN(const json::Value object, json::ParseObject(text, path));
  const json::Value& weights = json::Member(object, "weight_map");
  if (!weights.is_object() || weights.empty()) {
    return absl::InvalidArgumentError(base::Cat(path, ": field \"weight_map\" is missing"));
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [name, shard] : weights.items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get<std::string>())) {
      return absl::InvalidArgumentError(
          base::Cat(path, ": tensor ", name, " is in ", json::Excerpt(shard),
                    ", which is not the name of a file beside the index"));
    }
    shards[shard.get<std::string>()].push_back(name);
  }
  return shards;
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(auto mapped, MappedFile::Open(path));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(std::move(mapped)));
  TEMPER_RETURN_IF_ERROR(file->ParseHeader());
  return file;
}

absl::Status SafetensorsFile::ParseHeader() {
  const std::span<const std::byte> bytes = file_->bytes();
  const std::string& path = file_->path();
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    return absl::DataLossError(
        base::Cat(path, " has ", bytes.size(), " bytes, too few for a safetensors header"));
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof(header_bytes)) {
    return absl::DataLossError(base::Cat(path, ": the header claims ", header_bytes,
                                         " bytes, the file has ", bytes.size(), " (and at most ",
                                         kMaxHeaderBytes, " are allowed)"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes),
                              header_bytes);
  const absl::StatusOr<json::Value> header =
      json::ParseObject(text, base::Cat("the header of ", path));
  if (!header.ok()) return absl::DataLossError(header.status().message());
  const std::span<const std::byte> data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  for (const auto& [name, value] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<Entry> entry = ParseEntry(value, data);
    if (!entry.ok()) return base::Annotate(entry.status(), base::Cat(path, ": tensor ", name));
    entries_.emplace(name, *std::move(entry));
  }
  return CheckCoverage(entries_, data, path);
}

absl::StatusOr<TensorData> SafetensorsFile::Read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(base::Cat(file_->path(), " has no tensor ", name));
  }
  const Entry& entry = found->second;
  TensorData tensor{.shape = entry.shape, .values = {}};
  tensor.values.resize(entry.bytes.size() / StorageBytes(entry.type));
  Widen(entry.type, entry.bytes, tensor.values);
  return tensor;
}

absl::Status SafetensorsDirectory::AddFile(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
  for (const auto& [name, entry] : file->entries()) {
    if (!owners_.emplace(name, file.get()).second) {
      return absl::DataLossError(base::Cat(path, ": tensor ", name, " is in two shards"));
    }
    entries_.emplace(name, entry);
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsDirectory> SafetensorsDirectory::Open(const std::string& dir) {
  const std::filesystem::path root(dir);
  SafetensorsDirectory directory;
  std::error_code ignored;
  const std::string single = (root / "model.safetensors").string();
  if (std::filesystem::exists(single, ignored)) {
    TEMPER_RETURN_IF_ERROR(directory.AddFile(single));
    return directory;
  }
  const std::string index = (root / "model.safetensors.index.json").string();
  if (!std::filesystem::exists(index, ignored)) {
    return absl::NotFoundError(
        base::Cat(dir, " has neither model.safetensors nor model.safetensors.index.json"));
  }
  TEMPER_ASSIGN_OR_RETURN(const auto shards, ReadIndex(index));
  for (const auto& [shard, names] : shards) {
    const std::string path = (root / shard).string();
    TEMPER_RETURN_IF_ERROR(directory.AddFile(path));
    for (const std::string& name : names) {
      if (!directory.entries_.contains(name)) {
        return absl::DataLossError(
            base::Cat(path, " lacks tensor ", name, ", which ", index, " promises there"));
      }
    }
  }
  return directory;
}

absl::StatusOr<TensorData> SafetensorsDirectory::Read(const std::string& name) const {
  const auto owner = owners_.find(name);
  if (owner == owners_.end()) return absl::NotFoundError(base::Cat("there is no tensor ", name));
  return owner->second->Read(name);
}

absl::StatusOr<TensorMap> ReadSafetensorsDirectory(const std::string& dir) {
  TEMPER_ASSIGN_OR_RETURN(const SafetensorsDirectory directory, SafetensorsDirectory::Open(dir));
  TensorMap tensors;
  for (const auto& [name, entry] : directory.entries()) {
    TEMPER_ASSIGN_OR_RETURN(TensorData tensor, directory.Read(name));
    tensors.emplace(name, std::move(tensor));
  }
  return tensors;
}

}  // namespace temper::model
