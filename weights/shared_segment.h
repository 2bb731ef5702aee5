#pragma once

// A piece of memory that processes of one host share: made by one, attached by others that know its
// id. It has no name in any file system, so nothing is left of it once its last process is gone,
// however it ends.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace temper::weights {

// The first page of the segment of a broadcast group; payload follows at kPayloadOffset. Zeros mean
// "nothing yet". Every store but `pid` is followed by Signal.
struct SegmentHeader {
  static constexpr int kMaxRanks = 1024;
  struct alignas(16) Rank {
    std::atomic<int32_t> pid;          // of the process that took the rank
    std::atomic<uint32_t> done_round;  // the last round it is done with
    std::atomic<uint32_t> left;        // 1: it gave the rank up
  };
  uint64_t magic;
  uint64_t nonce;
  std::atomic<uint32_t> signal;       // counts Signal; what waiters sleep on
  std::atomic<uint32_t> world_size;   // set by rank 0 when it forms
  std::atomic<uint32_t> formed;       // 1: every rank has come
  std::atomic<uint32_t> ended;        // 1: the group is over
  std::atomic<uint32_t> round;        // number of the newest version on offer, from 1
  std::atomic<uint32_t> buckets_out;  // buckets of that round that are whole
  std::atomic<uint64_t> version;      // policy_version of that round
  std::array<Rank, kMaxRanks> ranks;  // by rank; that of rank 0 is unused but for its pid
};

// Owns a mapping of the header, one of the payload, and the descriptor. Thread-compatible, but for
// header(), Signal and AwaitSignal, which any thread of any attached process may use.
class SharedSegment final {
 public:
  static constexpr uint64_t kPayloadOffset = 32 << 10;

  // A new segment of this process. Errors: Unavailable with the system's message.
  static absl::StatusOr<std::unique_ptr<SharedSegment>> Make();
  // The segment that `id` names, through the descriptor of the process that made it. Errors:
  // InvalidArgument for bytes that are no id; NotFound if that process or segment is not here: it
  // is gone, or another user's, or in another process namespace, or the number is used by another.
  static absl::StatusOr<std::unique_ptr<SharedSegment>> Attach(std::string_view id);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  const std::string& id() const { return id_; }
  int owner_pid() const { return owner_pid_; }
  SegmentHeader& header() const { return *header_; }

  // Room for `bytes` of payload, allocated now; it never shrinks. For the maker. Errors:
  // ResourceExhausted if the memory is not there.
  absl::StatusOr<std::span<std::byte>> Grow(uint64_t bytes);
  // The first `bytes` of the payload, read-only. Errors: Unavailable if the segment is smaller.
  absl::StatusOr<std::span<const std::byte>> Payload(uint64_t bytes);

  // Wakes everyone who waits on the header.
  void Signal();
  // Sleeps until header().signal differs from `seen`, or `deadline`; may wake early.
  void AwaitSignal(uint32_t seen, absl::Time deadline) const;

 private:
  SharedSegment(int fd, int owner_pid) : fd_(fd), owner_pid_(owner_pid) {}
  absl::Status MapHeader();
  absl::Status MapPayload(uint64_t bytes, bool writable);

  const int fd_;
  const int owner_pid_;
  std::string id_;
  SegmentHeader* header_ = nullptr;
  std::span<std::byte> payload_;
};

// Whether another process lives, asked without being its parent. Thread-compatible.
class ProcessWatch final {
 public:
  // One that is gone already counts as gone; where the system does not let one watch, none ever
  // does and deadlines alone bound the waits for it.
  explicit ProcessWatch(int pid);
  ~ProcessWatch();
  ProcessWatch(const ProcessWatch&) = delete;
  ProcessWatch& operator=(const ProcessWatch&) = delete;

  // True from the moment it ended, also while nobody has taken its exit status.
  bool Gone() const;

 private:
  const int fd_;     // -1: not watched
  const bool gone_;  // from the start
};

}  // namespace temper::weights
