#pragma once

// The NCCL back end: buckets through device memory, one communicator for one epoch. Compiled only
// with TEMPER_CUDA; no header of CUDA or NCCL is needed to include this.

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "weights/broadcaster.h"

namespace temper::weights {

// A fresh name for a group, made by rank 0 and handed to the others by the control plane: opaque
// bytes. Errors: Unavailable if NCCL cannot make one (no network interface to listen on).
absl::StatusOr<std::string> MakeNcclId();

struct NcclOptions {
  std::string id;      // of MakeNcclId; a group's alone
  int rank = 0;        // 0: the root, which sends
  int world_size = 0;  // root and members, >= 2
  int device = 0;      // CUDA device of this process; two ranks of a group never share one
  absl::Duration poll = absl::Milliseconds(1);  // between two looks at a call in flight
};

// One rank of one group; any trouble ends it for good (comm_epoch.h says what follows). Send on
// rank 0 and Receive on all others run at the same time and carry the same manifest, which the
// control plane has told them. Every call into NCCL is non-blocking and polled with
// ncclCommGetAsyncError; a deadline, an error or Abort ends it with ncclCommAbort.
// Create, Send and Receive are called by one thread; Abort by any.
class NcclBroadcaster final : public BroadcastRoot, public BroadcastMember {
 public:
  // Forms the group: returns when every rank has called it.
  // Errors: InvalidArgument for a bad id, rank or device; DeadlineExceeded if a rank is missing;
  // Unavailable with NCCL's own message.
  static absl::StatusOr<std::unique_ptr<NcclBroadcaster>> Create(const NcclOptions& options,
                                                                 absl::Time deadline);
  ~NcclBroadcaster() override;

  absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) override;
  absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) override;
  void Abort(std::string_view reason) override;

 private:
  struct Impl;
  explicit NcclBroadcaster(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace temper::weights
