#pragma once

// A Communicator (epoch_runner.h) over a back end whose calls block: a thread makes them.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "weights/collective.h"
#include "weights/epoch_runner.h"

namespace temper::weights {

// What a communicator needs from around it. Called on its thread; what they use outlives the thread
// (see ~CollectiveCommunicator).
struct CommunicatorHooks {
  // Makes a group known to its members, who have ranks 1, 2, ... in this order. Returns by
  // `deadline`. An error fails the forming and blames no member.
  std::function<absl::Status(uint64_t comm_epoch, const std::string& id,
                             const std::vector<std::string>& members, absl::Time deadline)>
      announce;
  // Makes known that an epoch is over. Returns within seconds.
  std::function<void(uint64_t comm_epoch)> end;
  // A version that is out; null if it is not kept any more.
  std::function<std::shared_ptr<const WeightVersion>(uint64_t version)> find;
  // Progress that Poll will tell of. Quick; may be empty.
  std::function<void()> progressed;
};

struct CommunicatorOptions {
  std::shared_ptr<CollectiveBackEnd> back_end;  // shared with threads that are abandoned
  CommunicatorHooks hooks;
  absl::Duration form_timeout = absl::Seconds(20);
  absl::Duration broadcast_timeout = absl::Seconds(60);
  absl::Duration close_timeout = absl::Seconds(5);  // of destruction
};

// The Communicator contract: one thread calls it. A broadcast of a version whose manifest names
// another epoch fails, since no member would receive it. Peers that a failed call waited for are
// told as lost, once, and the failure itself only where nobody is lost.
class CollectiveCommunicator final : public Communicator {
 public:
  explicit CollectiveCommunicator(CommunicatorOptions options);
  // Aborts what is in flight, tells of the end of the epoch it holds, and joins the thread; one
  // that does not come back within close_timeout is abandoned as by Abandon.
  ~CollectiveCommunicator() override;

  void BeginForm(uint64_t comm_epoch, const std::vector<std::string>& members) override;
  void BeginBroadcast(uint64_t comm_epoch, uint64_t version) override;
  void BeginAbort(uint64_t comm_epoch) override;
  // The thread is left to itself with all that it holds; a hook that it is in is waited for, and no
  // other is called. The next BeginForm begins a new one.
  void Abandon(uint64_t comm_epoch) override;
  CommProgress Poll() override;

 private:
  class Worker;

  const std::shared_ptr<const CommunicatorOptions> options_;  // shared with the worker's thread
  std::shared_ptr<Worker> worker_;                            // shared with its thread
};

}  // namespace temper::weights
