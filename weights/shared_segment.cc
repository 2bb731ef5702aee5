#include "weights/shared_segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"

namespace temper::weights {
namespace {

constexpr uint64_t kMagic = 0x31'74'73'61'63'72'70'74;  // "tprcast1", little-endian
static_assert(sizeof(SegmentHeader) <= SharedSegment::kPayloadOffset);
static_assert(std::atomic<uint32_t>::is_always_lock_free &&
              std::atomic<uint64_t>::is_always_lock_free &&
              sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

// What an id consists of; sent as it lies in memory, for it is read on the same host.
struct Id {
  uint64_t magic = kMagic;
  int32_t pid = 0;
  int32_t fd = 0;
  uint64_t nonce = 0;
};

std::string LastError(std::string_view what) {
  return absl::StrCat(std::string(what), ": ", std::strerror(errno));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::Make() {
  const int fd = memfd_create("temper-broadcast", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return absl::UnavailableError(LastError("memfd_create"));
  std::unique_ptr<SharedSegment> segment(new SharedSegment(fd, getpid()));
  // Sealed against shrinking: whoever has mapped a part may read it for ever.
  if (ftruncate(fd, kPayloadOffset) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return absl::UnavailableError(LastError("making a shared segment"));
  }
  TEMPER_RETURN_IF_ERROR(segment->MapHeader());
  Id id{.pid = segment->owner_pid_, .fd = fd};
  if (getrandom(&id.nonce, sizeof(id.nonce), 0) != sizeof(id.nonce)) {
    return absl::UnavailableError(LastError("getrandom"));
  }
  segment->header_->magic = kMagic;
  segment->header_->nonce = id.nonce;
  segment->id_.assign(reinterpret_cast<const char*>(&id), sizeof(id));
  return segment;
}

absl::StatusOr<std::unique_ptr<SharedSegment>> SharedSegment::Attach(std::string_view id) {
  Id named;
  if (id.size() != sizeof(named)) {
    return absl::InvalidArgumentError(absl::StrCat("an id of ", id.size(), " bytes"));
  }
  std::memcpy(&named, id.data(), sizeof(named));
  if (named.magic != kMagic || named.pid <= 0 || named.fd < 0) {
    return absl::InvalidArgumentError("the id is none of a shared segment");
  }
  const std::string path = absl::StrCat("/proc/", named.pid, "/fd/", named.fd);
  const auto absent = [&](std::string_view why) {
    return absl::NotFoundError(absl::StrCat("no segment at ", path, ": ", std::string(why)));
  };
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return absent(std::strerror(errno));
  std::unique_ptr<SharedSegment> segment(new SharedSegment(fd, named.pid));
  // Only a file of memory has seals; without this one its maker could cut it under our mapping.
  const int seals = fcntl(fd, F_GET_SEALS);
  struct stat file = {};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &file) != 0 ||
      static_cast<uint64_t>(file.st_size) < kPayloadOffset) {
    return absent("another file is there");
  }
  TEMPER_RETURN_IF_ERROR(segment->MapHeader());
  if (segment->header_->magic != kMagic || segment->header_->nonce != named.nonce) {
    return absent("it is another group's");
  }
  segment->id_ = std::string(id);
  return segment;
}

SharedSegment::~SharedSegment() {
  if (!payload_.empty()) munmap(payload_.data(), payload_.size());
  if (header_ != nullptr) munmap(header_, kPayloadOffset);
  close(fd_);
}

absl::Status SharedSegment::MapHeader() {
  void* at = mmap(nullptr, kPayloadOffset, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (at == MAP_FAILED) return absl::UnavailableError(LastError("mmap"));
  header_ = static_cast<SegmentHeader*>(at);
  return absl::OkStatus();
}

absl::Status SharedSegment::MapPayload(uint64_t bytes, bool writable) {
  if (payload_.size() >= bytes) return absl::OkStatus();
  if (!payload_.empty()) munmap(payload_.data(), payload_.size());
  payload_ = {};
  void* at = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd_,
                  static_cast<off_t>(kPayloadOffset));
  if (at == MAP_FAILED) return absl::ResourceExhaustedError(LastError("mmap"));
  payload_ = {static_cast<std::byte*>(at), bytes};
  return absl::OkStatus();
}

absl::StatusOr<std::span<std::byte>> SharedSegment::Grow(uint64_t bytes) {
  if (payload_.size() < bytes) {
    // Allocated here, so that memory that is not there is an error and no signal while copying.
    if (posix_fallocate(fd_, 0, static_cast<off_t>(kPayloadOffset + bytes)) != 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no shared memory for ", bytes, " bytes of weights"));
    }
    TEMPER_RETURN_IF_ERROR(MapPayload(bytes, /*writable=*/true));
  }
  return payload_.first(bytes);
}

absl::StatusOr<std::span<const std::byte>> SharedSegment::Payload(uint64_t bytes) {
  struct stat file = {};
  if (fstat(fd_, &file) != 0 || static_cast<uint64_t>(file.st_size) < kPayloadOffset ||
      static_cast<uint64_t>(file.st_size) - kPayloadOffset < bytes) {
    return absl::UnavailableError(
        absl::StrCat("the segment has ", file.st_size, " bytes, the manifest needs ", bytes));
  }
  TEMPER_RETURN_IF_ERROR(MapPayload(bytes, /*writable=*/false));
  return payload_.first(bytes);
}

void SharedSegment::Signal() {
  header_->signal.fetch_add(1);
  syscall(SYS_futex, &header_->signal, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void SharedSegment::AwaitSignal(uint32_t seen, absl::Time deadline) const {
  const absl::Duration left = deadline - absl::Now();
  if (left <= absl::ZeroDuration()) return;
  const timespec timeout = absl::ToTimespec(left);
  syscall(SYS_futex, &header_->signal, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

ProcessWatch::ProcessWatch(int pid)
    : fd_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))), gone_(fd_ < 0 && errno == ESRCH) {}

ProcessWatch::~ProcessWatch() {
  if (fd_ >= 0) close(fd_);
}

bool ProcessWatch::Gone() const {
  if (fd_ < 0) return gone_;
  pollfd ended{.fd = fd_, .events = POLLIN};
  return poll(&ended, 1, 0) > 0;
}

}  // namespace temper::weights
