#include "orchestrator/broadcast_group.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {
namespace {

constexpr size_t kMaxIdBytes = 1024;
constexpr size_t kMaxMembers = 4096;

}  // namespace

absl::StatusOr<BroadcastGroups> AfterForm(BroadcastGroups groups, BroadcastGroup group) {
  if (group.comm_epoch == 0 || group.id.empty() || group.id.size() > kMaxIdBytes ||
      group.members.empty() || group.members.size() > kMaxMembers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a broadcast group of epoch ", group.comm_epoch, " with ",
                     group.members.size(), " members and an id of ", group.id.size(), " bytes"));
  }
  if (groups.current_epoch() == group.comm_epoch && groups.current->id == group.id) return groups;
  const uint64_t newest = std::max(groups.current_epoch(), groups.ended);
  if (group.comm_epoch <= newest) {
    return absl::AbortedError(absl::StrCat("broadcast group of epoch ", group.comm_epoch,
                                           " is late: epoch ", newest, " was"));
  }
  groups.ended = group.comm_epoch - 1;
  groups.current = std::move(group);
  return groups;
}

BroadcastGroups AfterEnd(BroadcastGroups groups, uint64_t comm_epoch) {
  groups.ended = std::max(groups.ended, comm_epoch);
  if (groups.current_epoch() <= groups.ended) groups.current.reset();
  return groups;
}

absl::StatusOr<v1::GetBroadcastGroupReply> FindSeat(const BroadcastGroups& groups,
                                                    uint64_t comm_epoch,
                                                    const std::string& member_id,
                                                    uint64_t incarnation) {
  if (comm_epoch <= groups.ended) {
    return absl::AbortedError(absl::StrCat("broadcast group of epoch ", comm_epoch,
                                           " is over: epoch ", groups.ended, " is"));
  }
  if (comm_epoch != groups.current_epoch()) {
    return absl::UnavailableError(
        absl::StrCat("broadcast group of epoch ", comm_epoch, " is not announced yet"));
  }
  const std::vector<v1::BroadcastPeer>& members = groups.current->members;
  const auto seat = std::find_if(members.begin(), members.end(), [&](const auto& member) {
    return member.member_id() == member_id && member.incarnation() == incarnation;
  });
  if (seat == members.end()) {
    return absl::NotFoundError(absl::StrCat(member_id, " of incarnation ", incarnation,
                                            " has no seat in the broadcast group of epoch ",
                                            comm_epoch));
  }
  v1::GetBroadcastGroupReply reply;
  reply.set_id(groups.current->id);
  reply.set_rank(static_cast<uint32_t>(seat - members.begin()) + 1);
  reply.set_world_size(static_cast<uint32_t>(members.size()) + 1);
  return reply;
}

}  // namespace temper::orchestrator
