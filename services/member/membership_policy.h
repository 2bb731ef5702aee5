#pragma once

// What a member does about an answer, or a missing answer, of the orchestrator. Pure.

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::member {

enum class AfterHeartbeat {
  kStay,    // go on, the next heartbeat when it is due
  kRejoin,  // the orchestrator does not know us (any more): Join again, same id and incarnation
  kLeave,   // this process has no part in the run any more; see `end`
};

struct HeartbeatDecision {
  AfterHeartbeat action = AfterHeartbeat::kStay;
  std::string reason;
  absl::Status end;  // kLeave: OK where the run ended or asked us to go, else why we were cut off
};

// After a heartbeat that failed with `status` (not OK), or a Join that was made because of kRejoin.
//   NotFound                                    rejoin (of a Join: leave, the orchestrator is not
//   ours) FailedPrecondition, InvalidArgument, Aborted, PermissionDenied, Unauthenticated  leave:
//   refused by number or configuration all others                                  stay while the
//   silence is within `limit`, then leave
//                                               with Unavailable
// silence: time since the orchestrator last answered us.
HeartbeatDecision DecideAfterFailure(const absl::Status& status, bool joining,
                                     absl::Duration silence, absl::Duration limit);

// After a heartbeat that was answered: leave if the run is finished, stopped or failed, or if the
// answer says drain; else stay. `end` is OK in every case: the end of a run is not our failure.
HeartbeatDecision DecideAfterReply(const v1::HeartbeatReply& reply);

// Whether the run is over in this state.
bool IsOver(v1::RunState state);

}  // namespace temper::member
