#include "weights/shared_memory_collective.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/base/status_macros.h"

namespace temper::weights {
namespace {

// A peer that ended without a word is noticed after so long.
constexpr absl::Duration kLook = absl::Milliseconds(20);

// Buckets lie one after the other, each at a multiple of this.
constexpr uint64_t kBucketAlignment = 64;
uint64_t Aligned(uint64_t bytes) {
  return (bytes + kBucketAlignment - 1) / kBucketAlignment * kBucketAlignment;
}

// Where each bucket begins, and at the end the size of all.
std::vector<uint64_t> Offsets(const v1::Manifest& manifest) {
  std::vector<uint64_t> offsets = {0};
  for (const v1::Bucket& bucket : manifest.buckets()) {
    offsets.push_back(offsets.back() + Aligned(bucket.size_bytes()));
  }
  return offsets;
}

}  // namespace

absl::StatusOr<std::string> SharedMemoryBackEnd::MakeId() {
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<SharedSegment> made, SharedSegment::Make());
  std::string id = made->id();
  absl::MutexLock lock(&mutex_);
  made_ = std::move(made);
  return id;
}

absl::StatusOr<std::unique_ptr<Collective>> SharedMemoryBackEnd::Join(const Seat& seat) {
  if (seat.rank != 0) {
    TEMPER_ASSIGN_OR_RETURN(auto segment, SharedSegment::Attach(seat.id));
    return SharedMemoryCollective::Create(seat, std::move(segment));
  }
  std::unique_ptr<SharedSegment> made;
  {
    absl::MutexLock lock(&mutex_);
    if (made_ == nullptr || made_->id() != seat.id) {
      return absl::NotFoundError("rank 0 joins with the newest id that it made");
    }
    made = std::move(made_);
  }
  return SharedMemoryCollective::Create(seat, std::move(made));
}

absl::StatusOr<std::unique_ptr<Collective>> SharedMemoryCollective::Create(
    const Seat& seat, std::unique_ptr<SharedSegment> segment) {
  if (seat.world_size < 2 || seat.world_size > SegmentHeader::kMaxRanks || seat.rank < 0 ||
      seat.rank >= seat.world_size) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", seat.rank, " of ", seat.world_size,
                                                   "; at most ", SegmentHeader::kMaxRanks));
  }
  return std::unique_ptr<Collective>(new SharedMemoryCollective(seat, std::move(segment)));
}

SharedMemoryCollective::SharedMemoryCollective(const Seat& seat,
                                               std::unique_ptr<SharedSegment> segment)
    : rank_(seat.rank), world_size_(seat.world_size), segment_(std::move(segment)) {}

SharedMemoryCollective::~SharedMemoryCollective() { EndGroup(); }

void SharedMemoryCollective::EndGroup() {
  SegmentHeader& header = segment_->header();
  (rank_ == 0 ? header.ended : header.ranks[static_cast<size_t>(rank_)].left).store(1);
  segment_->Signal();
}

absl::Status SharedMemoryCollective::Refusal() const {
  absl::MutexLock lock(&mutex_);
  return abort_reason_.empty() ? absl::OkStatus() : absl::AbortedError(abort_reason_);
}

std::vector<int> SharedMemoryCollective::Lost() const {
  absl::MutexLock lock(&mutex_);
  return lost_;
}

void SharedMemoryCollective::Abort(std::string_view reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (abort_reason_.empty()) abort_reason_ = absl::StrCat("aborted: ", std::string(reason));
  }
  EndGroup();
}

absl::Status SharedMemoryCollective::Await(absl::FunctionRef<bool()> done,
                                           absl::FunctionRef<absl::Status()> trouble,
                                           std::string_view what, absl::Time deadline) {
  while (true) {
    const uint32_t seen = segment_->header().signal.load();
    TEMPER_RETURN_IF_ERROR(Refusal());
    if (done()) return absl::OkStatus();
    TEMPER_RETURN_IF_ERROR(trouble());
    const absl::Time now = absl::Now();
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(std::string(what), " did not happen in time"));
    }
    segment_->AwaitSignal(seen, std::min(deadline, now + kLook));
  }
}

absl::Status SharedMemoryCollective::AwaitMembers(absl::FunctionRef<bool(int rank)> done,
                                                  std::string_view what, absl::Time deadline) {
  const SegmentHeader& header = segment_->header();
  std::vector<int> waited_for;
  const auto all_done = [&] {
    waited_for.clear();
    for (int rank = 1; rank < world_size_; ++rank) {
      // From the moment it is there: a pid may be another process's later.
      std::unique_ptr<ProcessWatch>& watch = watches_[static_cast<size_t>(rank)];
      const int32_t pid = header.ranks[static_cast<size_t>(rank)].pid.load();
      if (watch == nullptr && pid != 0) watch = std::make_unique<ProcessWatch>(pid);
      if (!done(rank)) waited_for.push_back(rank);
    }
    return waited_for.empty();
  };
  const auto trouble = [&]() -> absl::Status {
    std::vector<int> gone;
    for (const int rank : waited_for) {
      const std::unique_ptr<ProcessWatch>& watch = watches_[static_cast<size_t>(rank)];
      const bool left = header.ranks[static_cast<size_t>(rank)].left.load() != 0 ||
                        (watch != nullptr && watch->Gone());
      // Looked at again: it may have been done and have left since.
      if (left && !done(rank)) gone.push_back(rank);
    }
    if (gone.empty()) return absl::OkStatus();
    waited_for = gone;
    return absl::UnavailableError(absl::StrCat("lost: rank ", absl::StrJoin(gone, ", ")));
  };
  absl::Status status = Await(all_done, trouble, what, deadline);
  if (status.ok()) return status;
  EndGroup();
  if (absl::IsAborted(status)) return status;
  absl::MutexLock lock(&mutex_);
  lost_ = waited_for;
  return absl::Status(status.code(),
                      absl::StrCat(std::string(status.message()), "; waited for rank ",
                                   absl::StrJoin(waited_for, ", ")));
}

absl::Status SharedMemoryCollective::RootTrouble() {
  if (segment_->header().ended.load() != 0) return absl::AbortedError("the root ended the group");
  if (watches_[0]->Gone()) return absl::UnavailableError("the root's process has ended");
  return absl::OkStatus();
}

absl::Status SharedMemoryCollective::Form(absl::Time deadline) {
  SegmentHeader& header = segment_->header();
  int32_t nobody = 0;
  if (!header.ranks[static_cast<size_t>(rank_)].pid.compare_exchange_strong(nobody, getpid())) {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank_, " is taken by process ", nobody));
  }
  if (rank_ == 0) {
    watches_.resize(static_cast<size_t>(world_size_));
    header.world_size.store(static_cast<uint32_t>(world_size_));
    TEMPER_RETURN_IF_ERROR(AwaitMembers(
        [&](int rank) { return header.ranks[static_cast<size_t>(rank)].pid.load() != 0; },
        "the forming of the group", deadline));
    header.formed.store(1);
    segment_->Signal();
    return absl::OkStatus();
  }
  watches_.push_back(std::make_unique<ProcessWatch>(segment_->owner_pid()));
  segment_->Signal();
  TEMPER_RETURN_IF_ERROR(Await([&] { return header.formed.load() != 0; },
                               [this] { return RootTrouble(); }, "the forming of the group",
                               deadline));
  if (header.world_size.load() != static_cast<uint32_t>(world_size_)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the root formed a group of ", header.world_size.load(), ", not of ", world_size_));
  }
  return absl::OkStatus();
}

absl::Status SharedMemoryCollective::Send(std::shared_ptr<const WeightVersion> version,
                                          absl::Time deadline) {
  SegmentHeader& header = segment_->header();
  if (rank_ != 0) return absl::FailedPreconditionError("only rank 0 sends");
  TEMPER_RETURN_IF_ERROR(Refusal());
  if (header.formed.load() == 0 || header.ended.load() != 0) {
    return absl::FailedPreconditionError("the group has not formed, or is over");
  }
  const std::vector<uint64_t> offsets = Offsets(version->manifest());
  TEMPER_ASSIGN_OR_RETURN(const std::span<std::byte> payload, segment_->Grow(offsets.back()));
  header.version.store(version->manifest().version());
  header.buckets_out.store(0);
  header.round.store(++round_);
  segment_->Signal();
  for (size_t b = 0; b < version->buckets().size(); ++b) {
    TEMPER_RETURN_IF_ERROR(Refusal());
    const std::vector<std::byte>& bytes = *version->buckets()[b];
    std::memcpy(payload.data() + offsets[b], bytes.data(), bytes.size());
    header.buckets_out.store(static_cast<uint32_t>(b) + 1);
    segment_->Signal();
  }
  return AwaitMembers(
      [&](int rank) { return header.ranks[static_cast<size_t>(rank)].done_round.load() == round_; },
      absl::StrCat("the taking of version ", version->manifest().version()), deadline);
}

absl::Status SharedMemoryCollective::Receive(VersionAssembler* assembler, absl::Time deadline) {
  SegmentHeader& header = segment_->header();
  if (rank_ == 0) return absl::FailedPreconditionError("rank 0 has the bytes");
  const uint64_t wanted = assembler->manifest().version();
  while (true) {
    TEMPER_RETURN_IF_ERROR(Refusal());
    if (round_ > 0 && wanted <= carried_) {
      return absl::NotFoundError(absl::StrCat("the group has carried version ", carried_,
                                              " already, ", wanted, " is wanted"));
    }
    TEMPER_RETURN_IF_ERROR(Await([&] { return header.round.load() > round_; },
                                 [this] { return RootTrouble(); },
                                 absl::StrCat("the sending of version ", wanted), deadline));
    const uint64_t offered = header.version.load();
    if (offered > wanted) {
      return absl::NotFoundError(
          absl::StrCat("version ", offered, " is on offer, ", wanted, " is wanted"));
    }
    const absl::Status status =
        offered == wanted ? CopyRound(assembler, deadline) : absl::OkStatus();
    if (!status.ok() && !absl::IsDataLoss(status)) return status;
    // What was broadcast is past for this member even if it is of no use to it.
    carried_ = offered;
    round_ = header.round.load();
    header.ranks[static_cast<size_t>(rank_)].done_round.store(round_);
    segment_->Signal();
    if (offered == wanted) return status;
  }
}

absl::Status SharedMemoryCollective::CopyRound(VersionAssembler* assembler, absl::Time deadline) {
  const SegmentHeader& header = segment_->header();
  // The manifest alone says where and how much to read; what lies there is believed for its hash.
  const std::vector<uint64_t> offsets = Offsets(assembler->manifest());
  TEMPER_ASSIGN_OR_RETURN(const std::span<const std::byte> payload,
                          segment_->Payload(offsets.back()));
  absl::Status verified;
  for (const uint32_t bucket : assembler->Missing()) {
    TEMPER_RETURN_IF_ERROR(Await([&] { return header.buckets_out.load() > bucket; },
                                 [this] { return RootTrouble(); },
                                 absl::StrCat("the sending of bucket ", bucket), deadline));
    const std::span<std::byte> target = assembler->MutableBucket(bucket);
    std::memcpy(target.data(), payload.data() + offsets[bucket], target.size());
    verified.Update(assembler->FinishBucket(bucket));
  }
  return verified;
}

}  // namespace temper::weights
