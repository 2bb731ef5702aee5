#pragma once

// The in-process back end: a collective between threads, for tests and for one-process runs.

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/base/clock.h"
#include "weights/broadcaster.h"

namespace temper::weights {

// A group of one root and `members` members with numbers 0 .. members-1, each used by one thread.
// Send returns when every member has taken every bucket, as a collective does. Thread-safe. The
// hub outlives its sides.
class InProcessHub final {
 public:
  explicit InProcessHub(int members, base::Clock* clock = base::SystemClock());

  std::unique_ptr<BroadcastRoot> Root();
  std::unique_ptr<BroadcastMember> Member(int number);

 private:
  class RootSide;
  class MemberSide;
  struct State {
    absl::Mutex mutex;
    std::shared_ptr<const WeightVersion> version ABSL_GUARDED_BY(mutex);  // on offer; null: none
    uint64_t round ABSL_GUARDED_BY(mutex) = 0;                            // counts offers
    std::set<int> taken ABSL_GUARDED_BY(mutex);       // members done with this round
    std::string abort_reason ABSL_GUARDED_BY(mutex);  // empty: not aborted
  };
  const int members_;
  base::Clock* const clock_;
  const std::shared_ptr<State> state_;  // shared with the sides
};

}  // namespace temper::weights
