#pragma once

// What the orchestrator reads out of a resolved configuration.

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "orchestrator/eval_plan.h"
#include "orchestrator/retry_policy.h"
#include "orchestrator/role.h"
#include "orchestrator/step_policy.h"
#include "prompts/prompt_source.h"
#include "temper/v1/config.pb.h"

namespace temper::orchestrator {

struct RunPlan {
  v1::RunConfig config;
  uint64_t fingerprint = 0;
  StepOptions step;
  RetryOptions retry;
  EvalPlan eval;
  uint32_t groups_per_lease = 1;
  absl::Duration lease_duration;
  absl::Duration heartbeat_interval;
  absl::Duration member_timeout;
  absl::Duration no_worker_timeout;
  std::map<Role, uint32_t> desired;  // processes the supervisor keeps, at the start
  std::shared_ptr<const prompts::PromptSource> train;  // shared with nobody once the run has begun
  std::shared_ptr<const prompts::PromptSource> eval_questions;
};

// config: resolved and valid; nothing is defaulted here. Opens the two prompt sources and, where
// evaluation is on, compares them: no evaluation question may occur among the training problems (of
// an unbounded source: among the first that the run could reach). Returns: what CreatePromptSource
// and CheckSeparated return.
absl::StatusOr<RunPlan> MakeRunPlan(const v1::RunConfig& config);

}  // namespace temper::orchestrator
