#include "orchestrator/run_plan.h"

#include <algorithm>

#include "prompts/dataset_config.h"
#include "services/base/status_macros.h"
#include "services/config/run_config.h"

namespace temper::orchestrator {
namespace {

EvalPlan EvalPlanOf(const v1::RunConfig& config, const prompts::PromptSource& questions) {
  const v1::EvalConfig& eval = config.eval();
  const v1::NoisyOpsConfig& noise = config.trainer().noisy_ops();
  EvalPlan plan;
  plan.enabled = !eval.has_enabled() || eval.enabled();
  const uint64_t available = questions.size().value_or(uint64_t{1} << 32);
  const uint64_t wanted = eval.questions() == 0 ? available : eval.questions();
  plan.questions = static_cast<uint32_t>(std::min({wanted, available, uint64_t{1} << 20}));
  plan.error_scales = EvalScales({eval.error_scales().begin(), eval.error_scales().end()},
                                 noise.enabled() ? noise.error_scale() : 0.0);
  plan.noise_seeds = eval.has_noise_seeds() ? eval.noise_seeds() : 3;
  plan.questions_per_item = eval.questions_per_item() > 0 ? eval.questions_per_item() : 64;
  plan.every = eval.every();
  plan.planned_steps = config.trainer().total_updates();
  return plan;
}

absl::Duration SecondsOr(bool given, double seconds, double otherwise) {
  return absl::Seconds(given ? seconds : otherwise);
}

}  // namespace

absl::StatusOr<RunPlan> MakeRunPlan(const v1::RunConfig& config) {
  const v1::TrainerConfig& trainer = config.trainer();
  const v1::OrchestratorConfig& times = config.orchestrator();
  RunPlan plan;
  plan.config = config;
  plan.fingerprint = config::Fingerprint(config);
  const prompts::DatasetOptions dataset = prompts::DatasetOptionsFromConfig(config.dataset());
  TEMPER_ASSIGN_OR_RETURN(plan.train, prompts::CreatePromptSource(dataset, prompts::Split::kTrain));
  TEMPER_ASSIGN_OR_RETURN(plan.eval_questions,
                          prompts::CreatePromptSource(dataset, prompts::Split::kEval));
  const bool supervised = trainer.loss() == "sft";
  plan.step.groups_per_step = supervised ? 0 : trainer.groups_per_step();
  plan.step.max_staleness = trainer.max_staleness();
  plan.step.max_rounds =
      trainer.dapo().dynamic_sampling() ? std::max(1u, trainer.dapo().max_rounds()) : 1;
  plan.step.planned_steps = trainer.total_updates();
  plan.retry.max_attempts = std::max(1u, times.has_max_attempts() ? times.max_attempts() : 5);
  plan.retry.first_backoff =
      SecondsOr(times.has_retry_backoff_seconds(), times.retry_backoff_seconds(), 1);
  plan.eval = EvalPlanOf(config, *plan.eval_questions);
  plan.groups_per_lease = std::max(1u, config.rollout().groups_per_lease());
  plan.lease_duration = SecondsOr(times.has_lease_seconds(), times.lease_seconds(), 60);
  plan.heartbeat_interval = SecondsOr(times.has_heartbeat_seconds(), times.heartbeat_seconds(), 1);
  plan.member_timeout =
      SecondsOr(times.has_member_timeout_seconds(), times.member_timeout_seconds(), 10);
  plan.no_worker_timeout =
      SecondsOr(times.has_no_worker_timeout_seconds(), times.no_worker_timeout_seconds(), 300);
  plan.desired = {{Role::kRolloutWorker, config.local().rollout_workers()},
                  {Role::kRewardServer, config.local().reward_servers()}};
  if (plan.eval.enabled && plan.eval.questions > 0) {
    const uint64_t groups =
        plan.step.planned_steps * plan.step.groups_per_step * uint64_t{plan.step.max_rounds};
    const uint64_t train = plan.train->size().value_or(std::min<uint64_t>(groups, 10'000));
    TEMPER_RETURN_IF_ERROR(
        prompts::CheckSeparated(*plan.train, train, *plan.eval_questions, plan.eval.questions));
  }
  return plan;
}

}  // namespace temper::orchestrator
