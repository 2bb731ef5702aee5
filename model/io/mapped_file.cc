#include "model/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "services/base/files.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

// Maps the whole of the open file `fd`.
absl::StatusOr<std::span<const std::byte>> MapFile(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return base::StatusFromErrno(errno, "cannot stat", path);
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(base::Cat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return absl::DataLossError(base::Cat(path, " is empty"));
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) return base::StatusFromErrno(errno, "cannot map", path);
  return std::span<const std::byte>(static_cast<const std::byte*>(address), size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return base::StatusFromErrno(errno, "cannot open", path);
  const absl::StatusOr<std::span<const std::byte>> bytes = MapFile(fd, path);
  ::close(fd);  // a mapping outlives its descriptor
  if (!bytes.ok()) return bytes.status();
  return std::unique_ptr<MappedFile>(new MappedFile(path, *bytes));
}

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes)
    : path_(std::move(path)), bytes_(bytes) {}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

}  // namespace temper::model
