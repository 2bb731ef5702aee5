#pragma once

// Reading typed values out of a GGUF file's bytes. Private to model/io.

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/gguf.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {

// Walks over the bytes of a file; every read is checked against what is left, and fails with
// DataLoss and the offset. `bytes` and `path` must outlive it.
class GgufCursor final {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(path) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  absl::Status Lies(std::string_view what) const {
    return absl::DataLossError(
        base::Cat(path_, ": at byte ", offset_, " of ", bytes_.size(), ": ", what));
  }

  template <typename T>
  absl::StatusOr<T> Read(std::string_view what) {
    if (left() < sizeof(T)) return Lies(base::Cat("the file ends inside ", what));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::string> ReadString(std::string_view what) {
    TEMPER_ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
    if (size > kMaxStringBytes || size > left()) {
      return Lies(base::Cat(what, " claims ", size, " bytes of text, ", left(), " are left (and ",
                            kMaxStringBytes, " allowed)"));
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + offset_, size);
    offset_ += size;
    return text;
  }

 private:
  static constexpr uint64_t kMaxStringBytes = uint64_t{16} << 20;

  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t offset_ = 0;
};

// Reads a value: its type number, then the value. `what` names it in errors.
// Errors: DataLoss for an unknown type, or an array that claims more than the file holds.
absl::StatusOr<GgufFile::Value> ReadGgufValue(GgufCursor& cursor, std::string_view what);

}  // namespace temper::model
