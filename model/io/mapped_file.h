#pragma once

// A file mapped read-only into memory.

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace temper::model {

// Owns the mapping; bytes() is valid until destruction. Thread-safe once made. The file must not be
// truncated by another process meanwhile (the kernel would end this process with SIGBUS).
class MappedFile final {
 public:
  // Errors: those of services/base/files.h; InvalidArgument for what is not a regular file;
  // DataLoss for an empty one.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes);

  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace temper::model
