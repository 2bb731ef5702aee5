#include "rollout_worker/broadcast_seat.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::rollout_worker {
namespace {

// The learner announces a group as soon as its version is out; a group that is not announced in
// this time never will be, most often because its members changed.
constexpr absl::Duration kAnnouncementWait = absl::Seconds(3);
// The longest time before the watcher sees that it shall end.
constexpr absl::Duration kLook = absl::Milliseconds(250);

}  // namespace

BroadcastSeat::BroadcastSeat(BroadcastSeatOptions options) : options_(std::move(options)) {
  watcher_ = std::thread([this] { Watch(); });
}

BroadcastSeat::~BroadcastSeat() {
  Abort("the worker stops");
  watcher_.join();
}

absl::Status BroadcastSeat::Receive(weights::VersionAssembler* assembler, absl::Time deadline) {
  const v1::Manifest& manifest = assembler->manifest();
  if (manifest.comm_epoch() == 0) {
    return absl::FailedPreconditionError("the manifest names no broadcast group");
  }
  const Epoch epoch{.timeline = manifest.timeline(), .number = manifest.comm_epoch()};
  const absl::StatusOr<Held> seat = Meet(epoch, deadline);
  TEMPER_RETURN_IF_ERROR(seat.status());
  const absl::Status status = (*seat)->Receive(assembler, deadline);
  if (!status.ok() && !absl::IsNotFound(status)) Leave(status);
  return status;
}

absl::StatusOr<BroadcastSeat::Held> BroadcastSeat::Meet(const Epoch& epoch, absl::Time deadline) {
  Held left;  // goes after the lock
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::AbortedError("the worker stops");
    if (epoch_ == epoch) {
      if (held_ != nullptr) return held_;
      return absl::AbortedError(absl::StrCat("epoch ", epoch.number, " was left"));
    }
    left.swap(held_);
    epoch_ = epoch;
  }
  left.reset();
  absl::StatusOr<Held> seat = Come(epoch, deadline);
  if (!seat.ok()) Leave(seat.status());
  return seat;
}

absl::StatusOr<BroadcastSeat::Held> BroadcastSeat::Come(const Epoch& epoch, absl::Time deadline) {
  TEMPER_ASSIGN_OR_RETURN(
      const v1::GetBroadcastGroupReply group,
      options_.peers->GetBroadcastGroup(epoch.timeline, epoch.number,
                                        std::min(deadline, absl::Now() + kAnnouncementWait)));
  TEMPER_ASSIGN_OR_RETURN(
      Held seat, options_.back_end->Join({.id = group.id(),
                                          .rank = static_cast<int>(group.rank()),
                                          .world_size = static_cast<int>(group.world_size())}));
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::AbortedError("the worker stops");
    held_ = seat;
  }
  TEMPER_RETURN_IF_ERROR(seat->Form(deadline));
  base::LogInfo(
      "broadcast_seat_taken",
      {{"comm_epoch", epoch.number}, {"rank", group.rank()}, {"world_size", group.world_size()}});
  return seat;
}

void BroadcastSeat::Leave(const absl::Status& why) {
  Held left;
  absl::MutexLock lock(&mutex_);
  left.swap(held_);
  base::LogInfo("broadcast_seat_left", {{"comm_epoch", epoch_.has_value() ? epoch_->number : 0},
                                        {"reason", why.ToString()}});
}

void BroadcastSeat::Abort(std::string_view reason) {
  Held held;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    held = held_;
  }
  if (held != nullptr) held->Abort(reason);
}

bool BroadcastSeat::HasLeft(const v1::Manifest& manifest) const {
  absl::MutexLock lock(&mutex_);
  return held_ == nullptr &&
         epoch_ == Epoch{.timeline = manifest.timeline(), .number = manifest.comm_epoch()};
}

void BroadcastSeat::Watch() {
  while (true) {
    Held held;
    Epoch epoch;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      held = held_;
      if (held != nullptr) epoch = *epoch_;
    }
    // Looked at after the seat, so that it is no older than what the seat was taken by.
    const member::MembershipView view = options_.membership->view();
    const bool over = view.timeline != epoch.timeline || view.ended_comm_epoch >= epoch.number;
    if (held != nullptr && over) held->Abort("the epoch is over");
    held.reset();
    options_.membership->AwaitChange(view.revision, absl::Now() + kLook);
  }
}

}  // namespace temper::rollout_worker
