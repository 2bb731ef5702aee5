#pragma once

// Where the learner and the workers of a broadcast group meet: the newest group of the open
// timeline. Pure. Not in the ledger: after a restart of the orchestrator the group is unknown, and
// the next one is announced anew.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::orchestrator {

struct BroadcastGroup {
  uint64_t comm_epoch = 0;
  std::string id;                          // of the back end
  std::vector<v1::BroadcastPeer> members;  // rank of members[i]: i + 1
};

// All that is remembered of one timeline. Epoch numbers only grow.
struct BroadcastGroups {
  std::optional<BroadcastGroup> current;
  uint64_t ended = 0;  // this epoch and all before it are over

  uint64_t current_epoch() const { return current.has_value() ? current->comm_epoch : 0; }
};

// After the learner announced `group`; the one before it is over. The same group again changes
// nothing. Errors: InvalidArgument for one without number, id or members, or too large; Aborted for
// a late one.
absl::StatusOr<BroadcastGroups> AfterForm(BroadcastGroups groups, BroadcastGroup group);

// After the learner said that `comm_epoch` is over; a late word changes nothing.
BroadcastGroups AfterEnd(BroadcastGroups groups, uint64_t comm_epoch);

// The seat of a worker. Errors: Unavailable for an epoch that is not announced yet; NotFound for a
// worker that has no seat in it; Aborted for one that is over.
absl::StatusOr<v1::GetBroadcastGroupReply> FindSeat(const BroadcastGroups& groups,
                                                    uint64_t comm_epoch,
                                                    const std::string& member_id,
                                                    uint64_t incarnation);

}  // namespace temper::orchestrator
