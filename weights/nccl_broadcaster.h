#pragma once

// The NCCL back end: buckets through device memory, one communicator for one epoch. Compiled only
// with TEMPER_CUDA; no header of CUDA or NCCL is needed to include this.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "weights/collective.h"

namespace temper::weights {

struct NcclOptions {
  int device = 0;  // CUDA device of this process; two ranks of a group never share one
  absl::Duration poll = absl::Milliseconds(1);  // between two looks at a call in flight
};

class NcclBackEnd final : public CollectiveBackEnd {
 public:
  explicit NcclBackEnd(const NcclOptions& options) : options_(options) {}
  // Also Unavailable if NCCL has no network interface to listen on.
  absl::StatusOr<std::string> MakeId() override;
  absl::StatusOr<std::unique_ptr<Collective>> Join(const Seat& seat) override;

 private:
  const NcclOptions options_;
};

// One rank. Every call into NCCL is non-blocking and polled with ncclCommGetAsyncError; a deadline,
// an error or Abort ends it with ncclCommAbort. A version's number goes before its bytes, so that a
// member that fell behind passes over what it does not want.
class NcclBroadcaster final : public Collective {
 public:
  NcclBroadcaster(const Seat& seat, const NcclOptions& options);
  ~NcclBroadcaster() override;

  // Errors besides the seam's: InvalidArgument for a bad device; Unavailable with NCCL's own
  // message.
  absl::Status Form(absl::Time deadline) override;
  absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) override;
  // NotFound once a newer version came: the group goes on.
  absl::Status Receive(VersionAssembler* assembler, absl::Time deadline) override;
  // NCCL does not say which rank is missing: all others.
  std::vector<int> Lost() const override;
  void Abort(std::string_view reason) override;

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace temper::weights
