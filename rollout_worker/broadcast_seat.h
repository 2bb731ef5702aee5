#pragma once

// The worker's place in the broadcast groups of a run: comes to the group that a manifest names and
// receives there.

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "rollout_worker/peer_client.h"
#include "services/member/membership_client.h"
#include "weights/collective.h"

namespace temper::rollout_worker {

// All that is pointed to outlives the seat.
struct BroadcastSeatOptions {
  std::shared_ptr<weights::CollectiveBackEnd> back_end;
  const member::MembershipClient* membership = nullptr;
  PeerClient* peers = nullptr;
};

// Owns one thread, which watches the membership: an epoch that is over ends the call in flight.
// Receive is called by one thread; Abort by any. Ends by Abort and destruction.
//
//   no seat --manifest of a new epoch--> meeting --every rank has come--> seated --> receiving
//      ^                                    |                               |  ^--------'
//      '---- epoch over, deadline, no seat for us, any failure -------------'
//
// An epoch that was left is not come to again; its versions are pulled.
class BroadcastSeat final : public weights::BroadcastMember {
 public:
  explicit BroadcastSeat(BroadcastSeatOptions options);
  ~BroadcastSeat() override;

  // Of the group that the assembler's manifest names. Errors besides the seam's: NotFound where
  // this worker has no seat in that group, or it is past this version; Aborted for an epoch that is
  // over or was left; FailedPrecondition for a manifest that names none. After any but NotFound of
  // a version the seat is given up, which ends the group for the others too.
  absl::Status Receive(weights::VersionAssembler* assembler, absl::Time deadline) override;
  void Abort(std::string_view reason) override;

  // Whether the group that `manifest` names was left, so that its versions are pulled.
  bool HasLeft(const v1::Manifest& manifest) const;

 private:
  struct Epoch {
    uint64_t timeline = 0;
    uint64_t number = 0;
    friend bool operator==(const Epoch&, const Epoch&) = default;
  };
  using Held = std::shared_ptr<weights::Collective>;

  absl::StatusOr<Held> Meet(const Epoch& epoch, absl::Time deadline);
  absl::StatusOr<Held> Come(const Epoch& epoch, absl::Time deadline);
  void Leave(const absl::Status& why);
  void Watch();

  const BroadcastSeatOptions options_;
  mutable absl::Mutex mutex_;
  std::optional<Epoch> epoch_ ABSL_GUARDED_BY(mutex_);  // come to last, or tried
  Held held_ ABSL_GUARDED_BY(mutex_);  // null: none; shared by the receiver and who aborts it
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread watcher_;  // runs Watch
};

}  // namespace temper::rollout_worker
