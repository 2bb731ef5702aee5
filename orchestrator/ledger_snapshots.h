#pragma once

// Copies of the ledger for the learner's checkpoints, made on a thread of their own: neither the
// coordinator's lock nor a thread of gRPC waits for the disk.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace temper::orchestrator {

// A copy on disk that has no name any more: it goes with this object, whatever happens to the
// process. Thread-safe.
class LedgerCopy final {
 public:
  // Opens, hashes and unlinks the file. Errors: those of services/base/files.h.
  static absl::StatusOr<std::shared_ptr<const LedgerCopy>> Adopt(const std::string& path);
  ~LedgerCopy();
  LedgerCopy(const LedgerCopy&) = delete;
  LedgerCopy& operator=(const LedgerCopy&) = delete;

  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t xxh3() const { return xxh3_; }
  // `size` bytes from `offset` on; fewer at the end. Unavailable if reading fails.
  absl::StatusOr<std::string> Read(uint64_t offset, size_t size) const;

 private:
  LedgerCopy(int descriptor, uint64_t size_bytes, uint64_t xxh3)
      : descriptor_(descriptor), size_bytes_(size_bytes), xxh3_(xxh3) {}
  const int descriptor_;
  const uint64_t size_bytes_;
  const uint64_t xxh3_;
};

// Thread-safe. Makes one copy at a time, beside the ledger.
class LedgerSnapshots final {
 public:
  using Copy = absl::StatusOr<std::shared_ptr<const LedgerCopy>>;
  using Done = std::function<void(Copy)>;

  // ledger_path: of ledger.db, which is open elsewhere in this process.
  explicit LedgerSnapshots(std::string ledger_path);
  ~LedgerSnapshots() { Close(); }

  // Calls `done` once, without a lock: on our thread with the copy or why there is none
  // (ResourceExhausted: disk full), or on this one with Unavailable while another copy is being
  // made and after Close.
  void Make(Done done);

  // Ends the thread; `done` of a copy that it is making is called with Cancelled. Call before what
  // `done` uses goes.
  void Close();

 private:
  void MakeUntilClosed();
  Copy MakeNow() const;

  const std::string ledger_path_;
  std::atomic<bool> cancel_ = false;
  absl::Mutex mutex_;
  Done wanted_ ABSL_GUARDED_BY(mutex_);  // empty: no copy is being made
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // runs MakeUntilClosed; joined by Close
};

}  // namespace temper::orchestrator
