#pragma once

// Files that are either whole or not there. Thread-safe: no state.
//
// Errors everywhere, naming the path: NotFound (no such file or directory), ResourceExhausted (disk
// or quota full, or a limit given here), PermissionDenied, AlreadyExists, Unavailable (the rest).

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::base {

// The status for errno `error`, with "<what> <path>: <text of error>" as its message.
absl::Status StatusFromErrno(int error, std::string_view what, std::string_view path);

// The whole file. ResourceExhausted if it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

// Replaces `path` so that readers, and a machine that loses power, see the old or the new contents
// and nothing between: temporary name beside it, fsync, rename, fsync of the directory. On an error
// the old file is untouched and the temporary one is gone.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

// The same for contents that come in parts. Thread-compatible. Without Commit nothing remains.
class AtomicFileWriter final {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFileWriter>> Create(const std::string& path);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  absl::Status Append(std::string_view bytes);
  // Makes the file appear under its name. Call last, once.
  absl::Status Commit();

 private:
  AtomicFileWriter(std::string path, std::string temporary, int descriptor);
  const std::string path_;
  const std::string temporary_;
  int descriptor_;  // -1 once closed
};

// Adds `bytes` at the end, creating the file if needed; with `sync` they are on disk at return. On
// an error nothing of them remains, so that what is appended next follows whole lines; a process
// killed in between may leave a part of them. One writer per file.
absl::Status AppendToFile(const std::string& path, std::string_view bytes, bool sync = false);

// Creates the directory and its parents; existing ones are fine.
absl::Status MakeDirectories(const std::string& path);

// rename(2) of a file or directory whose contents are synced already, and fsync of the parent. An
// existing directory `to` must be empty.
absl::Status RenameDurably(const std::string& from, const std::string& to);

// fsync of a directory: the names in it survive a loss of power.
absl::Status SyncDirectory(const std::string& path);

// Removes a file, or a directory with all in it; not being there is fine.
absl::Status RemoveAll(const std::string& path);

bool PathExists(const std::string& path);

}  // namespace temper::base
