#pragma once

// Who belongs to the run and who is alive. Pure.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "orchestrator/role.h"

namespace temper::orchestrator {

// One process that has joined. (member_id, incarnation) names it; a restart under the same
// member_id has a larger incarnation.
struct Member {
  Role role = Role::kUnspecified;
  std::string member_id;
  uint64_t incarnation = 0;
  std::string address;          // gRPC; empty where it serves none
  std::string metrics_address;  // HTTP
  std::string host;
  int64_t pid = 0;
  absl::Time last_heard;  // of this orchestrator process; re-armed at its start
  // The weights a worker has verified and installed; reset by a new incarnation.
  bool has_version = false;
  uint64_t acknowledged_timeline = 0;
  uint64_t acknowledged_version = 0;
};

using Members = std::map<std::string, Member>;  // by member_id

enum class JoinVerdict {
  kNew,        // becomes a member
  kAgain,      // the same process joins again: the same answer
  kReplaces,   // a newer incarnation: what the older one held ends drained
  kOutdated,   // a newer incarnation of this member_id is known: refused
  kRoleTaken,  // the member_id is used by another role: refused
};
struct JoinDecision {
  JoinVerdict verdict;
  std::string reason;
};
JoinDecision DecideJoin(const Members& members, const std::string& member_id, Role role,
                        uint64_t incarnation);

// Alive: heard from within `timeout`. A member is gone at the first moment past it.
bool IsAlive(const Member& member, absl::Time now, absl::Duration timeout);

// Ids of the members to be declared gone, in order.
std::vector<std::string> SilentMembers(const Members& members, absl::Time now,
                                       absl::Duration timeout);

// When the next member would be silent for too long; InfiniteFuture without members.
absl::Time NextSilence(const Members& members, absl::Duration timeout);

int CountAlive(const Members& members, Role role, absl::Time now, absl::Duration timeout);

}  // namespace temper::orchestrator
