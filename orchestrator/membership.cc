#include "orchestrator/membership.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {

JoinDecision DecideJoin(const Members& members, const std::string& member_id, Role role,
                        uint64_t incarnation) {
  auto known = members.find(member_id);
  if (known == members.end()) return {JoinVerdict::kNew, "new member"};
  const Member& member = known->second;
  if (member.role != role) {
    return {JoinVerdict::kRoleTaken,
            absl::StrCat(member_id, " is a ", RoleName(member.role), ", not a ", RoleName(role))};
  }
  if (incarnation == member.incarnation) return {JoinVerdict::kAgain, "joined already"};
  if (incarnation > member.incarnation) {
    return {JoinVerdict::kReplaces,
            absl::StrCat("incarnation ", incarnation, " replaces ", member.incarnation)};
  }
  return {JoinVerdict::kOutdated,
          absl::StrCat("incarnation ", incarnation, " of ", member_id, " is older than ",
                       member.incarnation, ", which has joined")};
}

bool IsAlive(const Member& member, absl::Time now, absl::Duration timeout) {
  return now - member.last_heard <= timeout;
}

std::vector<std::string> SilentMembers(const Members& members, absl::Time now,
                                       absl::Duration timeout) {
  std::vector<std::string> silent;
  for (const auto& [id, member] : members) {
    if (!IsAlive(member, now, timeout)) silent.push_back(id);
  }
  return silent;
}

absl::Time NextSilence(const Members& members, absl::Duration timeout) {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, member] : members) next = std::min(next, member.last_heard + timeout);
  return next;
}

int CountAlive(const Members& members, Role role, absl::Time now, absl::Duration timeout) {
  int alive = 0;
  for (const auto& [id, member] : members) {
    if (member.role == role && IsAlive(member, now, timeout)) ++alive;
  }
  return alive;
}

}  // namespace temper::orchestrator
