#include "services/member/membership_policy.h"

#include "services/base/text.h"

namespace temper::member {
namespace {

HeartbeatDecision Stay(std::string reason) {
  return {.action = AfterHeartbeat::kStay, .reason = std::move(reason)};
}

HeartbeatDecision Leave(std::string reason, absl::Status end) {
  return {.action = AfterHeartbeat::kLeave, .reason = std::move(reason), .end = std::move(end)};
}

}  // namespace

HeartbeatDecision DecideAfterFailure(const absl::Status& status, bool joining,
                                     absl::Duration silence, absl::Duration limit) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      if (joining) return Leave("the orchestrator refused the join", status);
      return {.action = AfterHeartbeat::kRejoin,
              .reason = "the orchestrator does not know this member"};
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return Leave("the orchestrator refused this member", status);
    default:
      break;
  }
  if (silence <= limit) return Stay("no answer yet");
  const std::string reason =
      base::Cat("no answer of the orchestrator for ", absl::FormatDuration(silence), ", limit ",
                absl::FormatDuration(limit));
  return Leave(reason, absl::UnavailableError(base::Cat(reason, ": ", status.message())));
}

HeartbeatDecision DecideAfterReply(const v1::HeartbeatReply& reply) {
  if (IsOver(reply.state())) {
    return Leave(base::Cat(v1::RunState_Name(reply.state()), ": ", reply.state_reason()),
                 absl::OkStatus());
  }
  if (reply.drain()) return Leave("asked to drain", absl::OkStatus());
  return Stay("heard");
}

bool IsOver(v1::RunState state) {
  return state == v1::RUN_STATE_FINISHED || state == v1::RUN_STATE_STOPPED ||
         state == v1::RUN_STATE_FAILED;
}

}  // namespace temper::member
