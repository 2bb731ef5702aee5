#pragma once

// The leases this worker holds: what its heartbeats renew, and whether work on one still has a
// point. The orchestrator decides; this is the worker's picture of it, never more generous.

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::rollout_worker {

enum class LeaseStanding {
  kHeld,
  kUnknown,        // given back, or never taken
  kExpired,        // the orchestrator was not heard from for lease_seconds
  kOtherTimeline,  // the learner began a new timeline: the attempt is rewound
};
const char* LeaseStandingName(LeaseStanding standing);

// What the heartbeats say.
struct LeaseWeather {
  absl::Time now;
  bool connected = false;  // the last heartbeat was answered: leases held are renewed
  uint64_t timeline = 0;
};

// Thread-safe. `publish` (may be empty) is told what is held after every change, outside the lock
// and in order: the heartbeats name it.
class LeaseTable final {
 public:
  explicit LeaseTable(std::function<void(std::vector<v1::GroupRef>)> publish = nullptr)
      : publish_(std::move(publish)) {}

  // Takes a lease received at `now`.
  void Add(const v1::Lease& lease, absl::Time now);

  // How a lease stands; renews every lease first if the orchestrator is connected. A lease that was
  // lost once stays lost.
  LeaseStanding Check(uint64_t lease_id, const LeaseWeather& weather);

  // An attempt is over (submitted, failed or handed back): heartbeats stop naming it.
  void Release(uint64_t lease_id, const v1::GroupRef& ref);
  // The whole lease is over.
  void Close(uint64_t lease_id);

  // Attempts to name in heartbeats.
  std::vector<v1::GroupRef> Holding() const;
  size_t size() const;

 private:
  struct Held {
    uint64_t timeline = 0;
    absl::Duration term;  // lease_seconds
    absl::Time ends;
    LeaseStanding standing = LeaseStanding::kHeld;
    std::vector<v1::GroupRef> refs;
  };
  void Publish() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::function<void(std::vector<v1::GroupRef>)> publish_;
  absl::Mutex publishing_;  // one publication at a time, each of what is held then
  mutable absl::Mutex mutex_;
  std::map<uint64_t, Held> leases_ ABSL_GUARDED_BY(mutex_);  // by lease_id
};

}  // namespace temper::rollout_worker
