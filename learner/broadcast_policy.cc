#include "learner/broadcast_policy.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace temper::learner {

using weights::EpochEvent;
using weights::EpochPhase;

std::string BroadcastName(const v1::Peer& peer) {
  return absl::StrCat(peer.member_id(), "/", peer.incarnation());
}

v1::BroadcastPeer BroadcastPeerOf(std::string_view name) {
  const size_t slash = name.rfind('/');  // a member_id may hold slashes, an incarnation none
  v1::BroadcastPeer peer;
  peer.set_member_id(std::string(name.substr(0, slash)));
  uint64_t incarnation = 0;
  if (absl::SimpleAtoi(std::string(name.substr(slash + 1)), &incarnation)) {
    peer.set_incarnation(incarnation);
  }
  return peer;
}

std::set<std::string> BroadcastCandidates(const std::vector<v1::Peer>& peers,
                                          std::string_view host) {
  std::set<std::string> candidates;
  for (const v1::Peer& peer : peers) {
    const bool can = peer.role() == v1::ROLE_ROLLOUT_WORKER && peer.healthy() && peer.has_version();
    if (can && (host.empty() || peer.host() == host)) candidates.insert(BroadcastName(peer));
  }
  return candidates;
}

std::optional<std::string_view> BroadcastOutcome(const weights::GroupChange& change) {
  const EpochEvent::Kind kind = change.event->kind;
  if (change.from == EpochPhase::kForming && change.to == EpochPhase::kAborting) {
    return "not_formed";
  }
  if (change.from != EpochPhase::kBroadcasting) return std::nullopt;
  // A move that stays tells of something else, unless the next broadcast began with it.
  if (kind == EpochEvent::Kind::kSent) return "sent";
  if (change.to == EpochPhase::kBroadcasting) return std::nullopt;
  switch (kind) {
    case EpochEvent::Kind::kTick:
      return "deadline";
    case EpochEvent::Kind::kLeft:
      return "member_lost";
    default:
      return "failed";
  }
}

}  // namespace temper::learner
