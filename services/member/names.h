#pragma once

// Words for numbers of the wire, spelt alike in member ids, metric labels, logs and messages.

#include "temper/v1/common.pb.h"
#include "temper/v1/learner.pb.h"

namespace temper::member {

// "orchestrator", "reward_server", "learner", "rollout_worker", "supervisor"; else "unspecified".
const char* RoleName(v1::Role role);

// "admitted", "zero_variance", "stale", "refused", "superseded"; else "unspecified".
const char* VerdictName(v1::SubmitVerdict verdict);

}  // namespace temper::member
