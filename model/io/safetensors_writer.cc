#include "model/io/safetensors_writer.h"

#include <bit>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_join.h"
#include "model/io/float_formats.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

static_assert(std::endian::native == std::endian::little, "file formats here are little-endian");

std::string_view TypeName(StorageType type) {
  switch (type) {
    case StorageType::kFloat32:
      return "F32";
    case StorageType::kFloat16:
      return "F16";
    case StorageType::kBFloat16:
      return "BF16";
  }
  return "?";
}

// Values as they are stored; float32 needs no copy. The result may lie in `scratch`.
std::span<const std::byte> Narrow(std::span<const float> values, StorageType storage,
                                  std::vector<uint16_t>& scratch) {
  if (storage == StorageType::kFloat32) return std::as_bytes(values);
  scratch.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    scratch[i] = storage == StorageType::kFloat16 ? Float32ToFloat16(values[i])
                                                  : Float32ToBFloat16(values[i]);
  }
  return std::as_bytes(std::span<const uint16_t>(scratch));
}

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

absl::Status WrongSize(const TensorSpec& tensor, size_t values) {
  return absl::InvalidArgumentError(base::Cat("tensor ", tensor.name, " of shape [",
                                              absl::StrJoin(tensor.shape, ", "), "] has ", values,
                                              " values"));
}

absl::StatusOr<std::string> MakeHeader(const std::vector<TensorSpec>& tensors) {
  json::Value header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const std::optional<uint64_t> count = ShapeElements(tensor.shape);
    if (!count.has_value() || header.contains(tensor.name)) {
      return absl::InvalidArgumentError(
          base::Cat("tensor ", tensor.name, " of shape [", absl::StrJoin(tensor.shape, ", "),
                    count.has_value() ? "] comes twice" : "] cannot be"));
    }
    const uint64_t end = offset + *count * StorageBytes(tensor.storage);
    header[tensor.name] = {{"dtype", TypeName(tensor.storage)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::vector<TensorSpec> tensors,
                                     std::unique_ptr<base::AtomicFileWriter> file)
    : tensors_(std::move(tensors)), file_(std::move(file)) {}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorSpec> tensors) {
  TEMPER_ASSIGN_OR_RETURN(const std::string header, MakeHeader(tensors));
  const uint64_t header_bytes = header.size();
  TEMPER_ASSIGN_OR_RETURN(auto file, base::AtomicFileWriter::Create(path));
  TEMPER_RETURN_IF_ERROR(file->Append(AsText(std::as_bytes(std::span(&header_bytes, 1)))));
  TEMPER_RETURN_IF_ERROR(file->Append(header));
  return std::unique_ptr<SafetensorsWriter>(
      new SafetensorsWriter(std::move(tensors), std::move(file)));
}

absl::Status SafetensorsWriter::Append(std::span<const float> values) {
  if (next_ == tensors_.size()) {
    return absl::InvalidArgumentError(base::Cat("there are only ", next_, " tensors to write"));
  }
  const TensorSpec& tensor = tensors_[next_];
  if (ShapeElements(tensor.shape) != values.size()) return WrongSize(tensor, values.size());
  TEMPER_RETURN_IF_ERROR(file_->Append(AsText(Narrow(values, tensor.storage, scratch_))));
  ++next_;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Commit() {
  if (next_ < tensors_.size()) {
    return absl::FailedPreconditionError(
        base::Cat("tensor ", tensors_[next_].name, " has not been written"));
  }
  return file_->Commit();
}

absl::Status WriteSafetensors(const std::string& path, const TensorViewMap& tensors,
                              StorageType storage) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, view] : tensors) {
    specs.push_back({.name = name, .shape = view.shape, .storage = storage});
    if (ShapeElements(view.shape) != view.values.size()) {
      return WrongSize(specs.back(), view.values.size());
    }
  }
  TEMPER_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, std::move(specs)));
  for (const auto& [name, view] : tensors) TEMPER_RETURN_IF_ERROR(writer->Append(view.values));
  return writer->Commit();
}

}  // namespace temper::model
