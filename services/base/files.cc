#include "services/base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::base {
namespace {

std::string ParentOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// Writes all of `bytes`, whatever write(2) takes at a time.
absl::Status WriteAll(int descriptor, std::string_view bytes, std::string_view path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return StatusFromErrno(errno, "cannot write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// Reads up to `limit` bytes, or to the end.
absl::StatusOr<std::string> ReadUpTo(int descriptor, int64_t limit, const std::string& path) {
  constexpr int64_t kPartBytes = 1 << 20;
  std::string contents;
  while (static_cast<int64_t>(contents.size()) < limit) {
    const size_t filled = contents.size();
    const int64_t wanted = std::min(kPartBytes, limit - static_cast<int64_t>(filled));
    contents.resize(filled + static_cast<size_t>(wanted));
    const ssize_t read = ::read(descriptor, contents.data() + filled, static_cast<size_t>(wanted));
    if (read < 0 && errno != EINTR) return StatusFromErrno(errno, "cannot read", path);
    contents.resize(filled + static_cast<size_t>(std::max<ssize_t>(read, 0)));
    if (read == 0) break;
  }
  return contents;
}

}  // namespace

absl::Status StatusFromErrno(int error, std::string_view what, std::string_view path) {
  const std::string message = Cat(what, " ", path, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return StatusFromErrno(errno, "cannot open", path);
  // One byte more than allowed tells a file that is too large from one that just fits.
  absl::StatusOr<std::string> contents = ReadUpTo(descriptor, max_bytes + 1, path);
  ::close(descriptor);
  if (contents.ok() && static_cast<int64_t>(contents->size()) > max_bytes) {
    return absl::ResourceExhaustedError(
        Cat(path, " is larger than the limit of ", max_bytes, " bytes"));
  }
  return contents;
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> writer, AtomicFileWriter::Create(path));
  TEMPER_RETURN_IF_ERROR(writer->Append(contents));
  return writer->Commit();
}

AtomicFileWriter::AtomicFileWriter(std::string path, std::string temporary, int descriptor)
    : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

absl::StatusOr<std::unique_ptr<AtomicFileWriter>> AtomicFileWriter::Create(
    const std::string& path) {
  std::string temporary = path + ".partial-XXXXXX";
  const int descriptor = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (descriptor < 0) return StatusFromErrno(errno, "cannot create", path);
  ::fchmod(descriptor, 0644);  // mkostemp's 0600 would hide the file from dashboards and peers
  return std::unique_ptr<AtomicFileWriter>(
      new AtomicFileWriter(path, std::move(temporary), descriptor));
}

AtomicFileWriter::~AtomicFileWriter() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

absl::Status AtomicFileWriter::Append(std::string_view bytes) {
  return WriteAll(descriptor_, bytes, path_);
}

absl::Status AtomicFileWriter::Commit() {
  if (::fsync(descriptor_) != 0) return StatusFromErrno(errno, "cannot sync", path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return StatusFromErrno(errno, "cannot rename to", path_);
  }
  ::close(std::exchange(descriptor_, -1));
  return SyncDirectory(ParentOf(path_));
}

absl::Status AppendToFile(const std::string& path, std::string_view bytes, bool sync) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return StatusFromErrno(errno, "cannot open", path);
  const off_t end = ::lseek(descriptor, 0, SEEK_END);
  absl::Status status = WriteAll(descriptor, bytes, path);
  if (status.ok() && sync && ::fsync(descriptor) != 0) {
    status = StatusFromErrno(errno, "cannot sync", path);
  }
  // Cutting back needs no room; what is no regular file has no end to be cut back to.
  if (!status.ok() && end >= 0 && ::ftruncate(descriptor, end) != 0) errno = 0;
  ::close(descriptor);
  return status;
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return StatusFromErrno(error.value(), "cannot create directory", path);
  return absl::OkStatus();
}

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return StatusFromErrno(errno, Cat("cannot rename ", from, " to"), to);
  }
  return SyncDirectory(ParentOf(to));
}

absl::Status SyncDirectory(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return StatusFromErrno(errno, "cannot open directory", path);
  const bool synced = ::fsync(descriptor) == 0;
  const int error = errno;
  ::close(descriptor);
  return synced ? absl::OkStatus() : StatusFromErrno(error, "cannot sync directory", path);
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return StatusFromErrno(error.value(), "cannot remove", path);
  return absl::OkStatus();
}

bool PathExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

}  // namespace temper::base
