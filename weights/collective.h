#pragma once

// The seam of back ends that move bytes in a group of processes at once. Rank 0 is the root, which
// sends; every other rank is a member, which receives. A group is met by an id that rank 0 makes
// and the control plane hands to the others; the back end carries bytes and nothing else.
//
//   rank 0   MakeId -> Join -> Form -> Send ... Send -> destruction or Abort
//   others             Join -> Form -> Receive ...  -> destruction or Abort
//
// Back ends: shared memory (shared_memory_collective.h), NCCL (nccl_broadcaster.h). MakeBackEnd in
// back_end.h picks one by its name in the configuration.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "weights/broadcaster.h"

namespace temper::weights {

// A place in a group.
struct Seat {
  std::string id;      // of MakeId; a group's alone
  int rank = 0;        // 0: the root
  int world_size = 0;  // root and members, >= 2
};

// One rank of one group; any trouble ends it for good (comm_epoch.h says what follows). Form first,
// then Send on rank 0 and Receive on all others at the same time, version after version. These
// three are called by one thread at a time; Abort and Lost by any.
class Collective : public BroadcastRoot, public BroadcastMember {
 public:
  // Returns when every rank has called it. Errors: DeadlineExceeded if a rank is missing;
  // Unavailable if a rank is lost; Aborted after Abort.
  virtual absl::Status Form(absl::Time deadline) = 0;

  // Ranks that a failed Form or Send waited for in vain: those known to be gone or late, and where
  // the back end cannot tell, all others. Empty where no rank is to blame.
  virtual std::vector<int> Lost() const = 0;

  // Of both sides.
  void Abort(std::string_view reason) override = 0;
};

// Makes the ids and ranks of this process. Thread-safe.
class CollectiveBackEnd {
 public:
  virtual ~CollectiveBackEnd() = default;

  // A fresh name for a group, opaque bytes; rank 0 of it is this process. An id that is not joined
  // before the next one is made is given up. Errors: Unavailable, ResourceExhausted.
  virtual absl::StatusOr<std::string> MakeId() = 0;

  // Takes a place in a group without waiting for the others. Errors: InvalidArgument for an id,
  // rank or size that cannot be; NotFound for an id whose group is not here (any more).
  virtual absl::StatusOr<std::unique_ptr<Collective>> Join(const Seat& seat) = 0;
};

}  // namespace temper::weights
