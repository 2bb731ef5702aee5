#include "rollout_worker/lease_table.h"

#include <algorithm>
#include <utility>

namespace temper::rollout_worker {

const char* LeaseStandingName(LeaseStanding standing) {
  switch (standing) {
    case LeaseStanding::kHeld:
      return "held";
    case LeaseStanding::kUnknown:
      return "unknown";
    case LeaseStanding::kExpired:
      return "expired";
    case LeaseStanding::kOtherTimeline:
      return "other_timeline";
  }
  return "unknown";
}

void LeaseTable::Add(const v1::Lease& lease, absl::Time now) {
  Held held{.timeline = lease.timeline(), .term = absl::Seconds(lease.lease_seconds())};
  held.ends = now + held.term;
  for (const v1::TrainItem& item : lease.train()) held.refs.push_back(item.ref());
  {
    absl::MutexLock lock(&mutex_);
    leases_[lease.lease_id()] = std::move(held);
  }
  Publish();
}

void LeaseTable::Publish() {
  if (!publish_) return;
  absl::MutexLock lock(&publishing_);
  publish_(Holding());
}

LeaseStanding LeaseTable::Check(uint64_t lease_id, const LeaseWeather& weather) {
  absl::MutexLock lock(&mutex_);
  for (auto& [id, held] : leases_) {
    if (held.standing != LeaseStanding::kHeld) continue;
    if (held.timeline != weather.timeline) {
      held.standing = LeaseStanding::kOtherTimeline;
    } else if (weather.connected) {
      held.ends = weather.now + held.term;
    } else if (weather.now >= held.ends) {
      held.standing = LeaseStanding::kExpired;
    }
    if (held.standing != LeaseStanding::kHeld) held.refs.clear();
  }
  const auto found = leases_.find(lease_id);
  return found == leases_.end() ? LeaseStanding::kUnknown : found->second.standing;
}

void LeaseTable::Release(uint64_t lease_id, const v1::GroupRef& ref) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = leases_.find(lease_id);
    if (found == leases_.end()) return;
    std::erase_if(found->second.refs, [&ref](const v1::GroupRef& held) {
      return held.group_index() == ref.group_index() && held.attempt() == ref.attempt();
    });
  }
  Publish();
}

void LeaseTable::Close(uint64_t lease_id) {
  {
    absl::MutexLock lock(&mutex_);
    leases_.erase(lease_id);
  }
  Publish();
}

std::vector<v1::GroupRef> LeaseTable::Holding() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::GroupRef> holding;
  for (const auto& [id, held] : leases_) {
    holding.insert(holding.end(), held.refs.begin(), held.refs.end());
  }
  return holding;
}

size_t LeaseTable::size() const {
  absl::MutexLock lock(&mutex_);
  return leases_.size();
}

}  // namespace temper::rollout_worker
