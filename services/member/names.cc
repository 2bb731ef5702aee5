#include "services/member/names.h"

namespace temper::member {

const char* RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_ORCHESTRATOR:
      return "orchestrator";
    case v1::ROLE_REWARD_SERVER:
      return "reward_server";
    case v1::ROLE_LEARNER:
      return "learner";
    case v1::ROLE_ROLLOUT_WORKER:
      return "rollout_worker";
    case v1::ROLE_SUPERVISOR:
      return "supervisor";
    default:
      return "unspecified";
  }
}

const char* VerdictName(v1::SubmitVerdict verdict) {
  switch (verdict) {
    case v1::SUBMIT_VERDICT_ADMITTED:
      return "admitted";
    case v1::SUBMIT_VERDICT_ZERO_VARIANCE:
      return "zero_variance";
    case v1::SUBMIT_VERDICT_STALE:
      return "stale";
    case v1::SUBMIT_VERDICT_REFUSED:
      return "refused";
    case v1::SUBMIT_VERDICT_SUPERSEDED:
      return "superseded";
    default:
      return "unspecified";
  }
}

}  // namespace temper::member
