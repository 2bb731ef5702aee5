#include "orchestrator/work_waiters.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {
namespace {

// Nothing that can happen gives this call work: the weights it names have been overtaken. Whoever
// called has to hear of the newer ones, install them and ask again.
bool IsOutdated(const v1::AcquireWorkRequest& asked, const v1::AcquireWorkReply& found) {
  return found.reason() == "stale_weights" &&
         (!asked.has_version() || asked.acknowledged_timeline() != found.timeline() ||
          asked.acknowledged_version() != found.latest_version());
}

}  // namespace

bool WorkWaiters::Look(const Waiter& waiter, bool first, bool last) {
  if (waiter.call->finished()) return true;  // the caller gave up
  v1::AcquireWorkReply found;
  const absl::Status status = coordinator_->AcquireWork(waiter.copy, first, &found);
  if (status.ok() && !found.has_lease() && !last && !IsOutdated(waiter.copy, found)) return false;
  if (status.ok() && !found.has_lease()) coordinator_->CountNoWork(found.reason());
  const bool delivered = waiter.call->Finish([&] {
    *waiter.reply = found;
    return status;
  });
  if (!delivered && found.has_lease()) coordinator_->TakeBack(found.lease());
  return true;
}

bool WorkWaiters::SameCaller(const Waiter& one, const Waiter& other) {
  return one.copy.member_id() == other.copy.member_id() &&
         one.copy.incarnation() == other.copy.incarnation();
}

void WorkWaiters::EndReplaced(const Waiter& waiter) {
  waiter.call->Finish([&] {
    return absl::AbortedError(absl::StrCat(waiter.copy.member_id(), " of incarnation ",
                                           waiter.copy.incarnation(), " asked for work again"));
  });
}

grpc::ServerUnaryReactor* WorkWaiters::Add(const v1::AcquireWorkRequest* request,
                                           v1::AcquireWorkReply* reply) {
  auto call = rpc::DeferredReply::Create(metrics_, "AcquireWork");
  grpc::ServerUnaryReactor* reactor = call->reactor();
  const double seconds = std::isfinite(request->wait_seconds()) ? request->wait_seconds() : 0.0;
  const absl::Duration wait =
      std::clamp(absl::Seconds(seconds), absl::ZeroDuration(), kLongestWait);
  Waiter waiter{request, reply, std::move(call), *request, clock_->Now() + wait};
  bool last = wait <= absl::ZeroDuration();
  {
    absl::MutexLock lock(&mutex_);
    last = last || closed_;
  }
  if (Look(waiter, /*first=*/true, last)) return reactor;
  std::optional<Waiter> replaced;
  {
    absl::MutexLock lock(&mutex_);
    auto older = std::find_if(waiters_.begin(), waiters_.end(),
                              [&](const Waiter& other) { return SameCaller(waiter, other); });
    if (older != waiters_.end()) {
      replaced = std::move(*older);
      waiters_.erase(older);
    }
    waiters_.push_back(std::move(waiter));
  }
  if (replaced) EndReplaced(*replaced);
  LookAgain();  // something may have changed between the look and the list
  return reactor;
}

void WorkWaiters::LookAtAll(absl::Time now) {
  std::vector<Waiter> waiting;
  bool closed;
  {
    absl::MutexLock lock(&mutex_);
    waiting.swap(waiters_);
    closed = closed_;
  }
  std::vector<Waiter> left;
  for (Waiter& waiter : waiting) {
    if (!Look(waiter, /*first=*/false, closed || waiter.deadline <= now)) {
      left.push_back(std::move(waiter));
    }
  }
  std::vector<Waiter> replaced;
  {
    absl::MutexLock lock(&mutex_);
    auto asked_again = std::stable_partition(left.begin(), left.end(), [&](const Waiter& waiter) {
      mutex_.AssertHeld();
      return std::none_of(waiters_.begin(), waiters_.end(),
                          [&](const Waiter& newer) { return SameCaller(waiter, newer); });
    });
    std::move(asked_again, left.end(), std::back_inserter(replaced));
    waiters_.insert(waiters_.begin(), std::make_move_iterator(left.begin()),
                    std::make_move_iterator(asked_again));
  }
  for (const Waiter& waiter : replaced) EndReplaced(waiter);
}

void WorkWaiters::LookAgain() {
  {
    absl::MutexLock lock(&mutex_);
    again_ = true;
    if (looking_) return;
    looking_ = true;
  }
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (!again_) {
        looking_ = false;
        return;
      }
      again_ = false;
    }
    LookAtAll(clock_->Now());
  }
}

absl::Time WorkWaiters::AnswerOverdue(absl::Time now) {
  auto next = [&] {
    absl::MutexLock lock(&mutex_);
    absl::Time first = absl::InfiniteFuture();
    for (const Waiter& waiter : waiters_) first = std::min(first, waiter.deadline);
    return first;
  };
  if (next() > now) return next();
  LookAgain();
  return next();
}

void WorkWaiters::Close() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  LookAgain();
}

}  // namespace temper::orchestrator
