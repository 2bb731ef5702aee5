#pragma once

// Who could be in the broadcast group, and how a broadcast ended. Pure.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "temper/v1/orchestrator.pb.h"
#include "weights/group_runner.h"

namespace temper::learner {

// One incarnation of a worker as the group names it: "member_id/incarnation".
std::string BroadcastName(const v1::Peer& peer);
v1::BroadcastPeer BroadcastPeerOf(std::string_view name);

// The rollout workers among `peers` that are alive and have acknowledged a version, so that their
// engine runs; on `host` only, unless it is empty.
std::set<std::string> BroadcastCandidates(const std::vector<v1::Peer>& peers,
                                          std::string_view host);

// What became of a broadcast, if this move ends one: sent; deadline, member_lost, failed (it was
// aborted); not_formed (its group never was).
std::optional<std::string_view> BroadcastOutcome(const weights::GroupChange& change);

}  // namespace temper::learner
