#pragma once

// The root's side of broadcast groups, on a thread of its own: follows who is alive, forms groups,
// broadcasts versions. Whoever publishes never waits for it.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "weights/collective_communicator.h"
#include "weights/epoch_runner.h"

namespace temper::weights {

// One move of the state machine.
struct GroupChange {
  EpochPhase from = EpochPhase::kNoGroup;
  EpochPhase to = EpochPhase::kNoGroup;
  absl::Duration in_from;  // how long it was in `from`
  const EpochEvent* event = nullptr;
  const EpochMove* move = nullptr;
};

struct GroupRunnerOptions {
  std::shared_ptr<CollectiveBackEnd> back_end;
  // Who is alive and could be a member; a restart of a process is another name. Asked on the
  // runner's thread a few times a second; quick.
  std::function<std::set<std::string>()> candidates;
  // As in CommunicatorHooks; on the communicator's thread.
  decltype(CommunicatorHooks::announce) announce;
  decltype(CommunicatorHooks::end) end;
  std::function<void(const GroupChange&)> observe;  // every move; on the runner's thread; quick
  absl::Duration form_timeout = absl::Seconds(20);
  absl::Duration broadcast_timeout = absl::Seconds(60);
};

// Thread-safe. Everything the hooks use outlives it. The destructor ends the group and returns
// within seconds, also where a call to the back end hangs.
//
// A member that a group waited for in vain, at its forming or in a broadcast, is left out of the
// groups that follow, until it comes back under another name: it pulls, and holds nobody up again.
class GroupRunner final {
 public:
  explicit GroupRunner(GroupRunnerOptions options);
  ~GroupRunner();

  // What to write into the manifest of a version that is published now: see comm_epoch.h.
  uint64_t CarryingEpoch() const;

  // The version is out: it is broadcast if its manifest names a group. Never waits.
  void VersionOut(std::shared_ptr<const WeightVersion> version);

 private:
  void Run();
  void FollowMembers();
  void Observe(const EpochEvent& event, const EpochMove& move);
  absl::Status Announce(uint64_t comm_epoch, const std::string& id,
                        const std::vector<std::string>& members, absl::Time deadline);
  std::shared_ptr<const WeightVersion> Find(uint64_t version) const;
  void Wake();

  const GroupRunnerOptions options_;
  mutable absl::Mutex mutex_;
  std::deque<std::shared_ptr<const WeightVersion>> versions_
      ABSL_GUARDED_BY(mutex_);                           // newest last
  std::optional<uint64_t> out_ ABSL_GUARDED_BY(mutex_);  // newest, until the machine has it
  uint64_t carrying_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  // The runner's thread alone.
  std::set<std::string> candidates_;
  std::set<std::string> left_out_;
  EpochPhase phase_ = EpochPhase::kNoGroup;
  absl::Time phase_since_ = absl::InfinitePast();
  std::unique_ptr<CollectiveCommunicator> communicator_;
  std::unique_ptr<EpochRunner> runner_;
  std::thread thread_;  // runs Run
};

}  // namespace temper::weights
