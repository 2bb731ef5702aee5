#pragma once

// A file mapped read-only into memory.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model {

// Owns the mapping; bytes() is valid until destruction. Thread-safe once made. The file must not be
// truncated by another process meanwhile (the kernel would end this process with SIGBUS).
class MappedFile final {
 public:
  // Errors: NotFound, PermissionDenied; InvalidArgument for a directory or another non-file;
  // DataLoss for an empty file.
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

// Reads a text file of at most `max_bytes`. Errors: NotFound, PermissionDenied, InvalidArgument as
// above; ResourceExhausted if it is larger.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);

// Writes `pieces` one after another to a temporary name beside `path`, syncs and renames, so that
// `path` holds either its former content or all of the pieces. The temporary file is removed on
// failure. Errors: ResourceExhausted on a full disk, else Internal or PermissionDenied.
absl::Status WriteFileAtomically(const std::string& path,
                                 std::span<const std::span<const std::byte>> pieces);
absl::Status WriteFileAtomically(const std::string& path, std::string_view text);

// Makes the entries of directory `dir` durable. Errors: NotFound, Internal.
absl::Status SyncDirectory(const std::string& dir);

}  // namespace temper::model
