#include "orchestrator/ledger_snapshots.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "orchestrator/sqlite.h"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

constexpr char kCopySuffix[] = ".copy";

}  // namespace

absl::StatusOr<std::shared_ptr<const LedgerCopy>> LedgerCopy::Adopt(const std::string& path) {
  TEMPER_ASSIGN_OR_RETURN(const uint64_t xxh3, base::HashFile64(path));
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return base::StatusFromErrno(errno, "cannot open", path);
  struct stat facts {};
  const int error = fstat(descriptor, &facts) == 0 ? 0 : errno;
  const auto size = static_cast<uint64_t>(facts.st_size);
  std::shared_ptr<const LedgerCopy> copy(new LedgerCopy(descriptor, size, xxh3));
  if (error != 0) return base::StatusFromErrno(error, "cannot measure", path);
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(path));
  return copy;
}

LedgerCopy::~LedgerCopy() { close(descriptor_); }

absl::StatusOr<std::string> LedgerCopy::Read(uint64_t offset, size_t size) const {
  std::string bytes(size, '\0');
  ssize_t read;
  do {
    read = pread(descriptor_, bytes.data(), size, static_cast<off_t>(offset));
  } while (read < 0 && errno == EINTR);
  if (read < 0) return base::StatusFromErrno(errno, "cannot read", "the ledger's copy");
  bytes.resize(static_cast<size_t>(read));
  return bytes;
}

LedgerSnapshots::LedgerSnapshots(std::string ledger_path) : ledger_path_(std::move(ledger_path)) {
  thread_ = std::thread([this] { MakeUntilClosed(); });
}

void LedgerSnapshots::Make(Done done) {
  {
    absl::MutexLock lock(&mutex_);
    if (!closed_ && wanted_ == nullptr) {
      wanted_ = std::move(done);
      return;
    }
  }
  done(absl::UnavailableError("another copy of the ledger is being made"));
}

void LedgerSnapshots::Close() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  cancel_.store(true);
  if (thread_.joinable()) thread_.join();
}

void LedgerSnapshots::MakeUntilClosed() {
  const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || wanted_ != nullptr;
  };
  while (true) {
    Done done;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&due));
      if (wanted_ == nullptr) return;
      done = wanted_;
    }
    Copy copy = MakeNow();
    {
      absl::MutexLock lock(&mutex_);
      wanted_ = nullptr;
    }
    done(std::move(copy));
  }
}

LedgerSnapshots::Copy LedgerSnapshots::MakeNow() const {
  const std::string path = ledger_path_ + kCopySuffix;
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(path));  // of a process that was killed meanwhile
  absl::Status status = CopyDatabase(ledger_path_, path, &cancel_);
  if (status.ok()) {
    Copy copy = LedgerCopy::Adopt(path);
    if (copy.ok()) return copy;
    status = copy.status();
  }
  base::RemoveAll(path).IgnoreError();  // tried again before the next copy
  return status;
}

}  // namespace temper::orchestrator
