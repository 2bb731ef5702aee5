#pragma once

// The shared-memory back end: a group of processes on one host. The root copies a version into
// memory that all have mapped, bucket by bucket; each member copies a bucket out as soon as it is
// whole and verifies it. Costs one more copy of a version in the memory of the host, freed with the
// group.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "weights/collective.h"
#include "weights/shared_segment.h"

namespace temper::weights {

// Ids name this process's segment (shared_segment.h says what they hold).
class SharedMemoryBackEnd final : public CollectiveBackEnd {
 public:
  absl::StatusOr<std::string> MakeId() override;
  absl::StatusOr<std::unique_ptr<Collective>> Join(const Seat& seat) override;

 private:
  absl::Mutex mutex_;
  std::unique_ptr<SharedSegment> made_ ABSL_GUARDED_BY(mutex_);  // the newest, until joined
};

// One rank. Sleeps on the segment's signal and looks between two sleeps whether a peer's process
// has ended; the root knows all, a member the root.
class SharedMemoryCollective final : public Collective {
 public:
  // segment: for rank 0 the one it made, for others the one they attached. Errors: InvalidArgument
  // for a rank or size that cannot be.
  static absl::StatusOr<std::unique_ptr<Collective>> Create(const Seat& seat,
                                                            std::unique_ptr<SharedSegment> segment);
  ~SharedMemoryCollective() override;

  // Also FailedPrecondition for a rank that is taken.
  absl::Status Form(absl::Time deadline) override;

  // Returns when every member is done with the version, wanted or not.
  absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) override;

  // Waits for the round that carries the assembler's version; older rounds are passed over, so a
  // member that fell behind holds nobody up. NotFound once a newer version is on offer, or this one
  // was taken before: the group goes on.
  absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) override;

  std::vector<int> Lost() const override;
  void Abort(std::string_view reason) override;

 private:
  SharedMemoryCollective(const Seat& seat, std::unique_ptr<SharedSegment> segment);

  // Waits until `done`; `trouble` is asked meanwhile and ends the wait with its error.
  absl::Status Await(absl::FunctionRef<bool()> done, absl::FunctionRef<absl::Status()> trouble,
                     std::string_view what, absl::Time deadline);
  // Waits, on the root, until `done` holds for every member's rank; fills lost_ if it does not.
  absl::Status AwaitMembers(absl::FunctionRef<bool(int rank)> done, std::string_view what,
                            absl::Time deadline);
  absl::Status RootTrouble();
  absl::Status CopyRound(VersionAssembler* assembler, absl::Time deadline);
  absl::Status Refusal() const;
  // Ends the group for all (the root) or this rank (a member).
  void EndGroup();

  const int rank_;
  const int world_size_;
  const std::unique_ptr<SharedSegment> segment_;
  std::vector<std::unique_ptr<ProcessWatch>> watches_;  // root: of each rank; member: of the root
  uint32_t round_ = 0;                                  // newest round this rank is done with
  uint64_t carried_ = 0;                                // version of that round
  mutable absl::Mutex mutex_;
  std::string abort_reason_ ABSL_GUARDED_BY(mutex_);  // empty: not aborted
  std::vector<int> lost_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::weights
