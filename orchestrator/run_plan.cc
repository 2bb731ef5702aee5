#include "orchestrator/run_plan.h"

#include <algorithm>

#include "prompts/dataset_config.h"
#include "services/base/status_macros.h"
#include "services/config/injection_plan.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"

namespace temper::orchestrator {
namespace {

EvalPlan EvalPlanOf(const v1::RunConfig& config, const prompts::PromptSource& questions) {
  const v1::EvalConfig& eval = config.eval();
  EvalPlan plan;
  plan.enabled = eval.enabled();
  const uint64_t available = questions.size().value_or(uint64_t{1} << 32);
  const uint64_t wanted = eval.questions() == 0 ? available : eval.questions();
  plan.questions = static_cast<uint32_t>(std::min({wanted, available, uint64_t{1} << 20}));
  plan.error_scales = EvalScales({eval.error_scales().begin(), eval.error_scales().end()});
  // Frozen error is that of one device, whatever the noise seed, some errors draw nothing, and so
  // does greedy decoding: further seeds would repeat the first one's evaluation and count as
  // evidence.
  const v1::NoisyOpsConfig& noisy = config.trainer().noisy_ops();
  const auto error = config::ErrorFromConfig(noisy);
  const bool one_error = noisy.noise_key() == "frozen" || (error.ok() && !error->random());
  const bool seeds_repeat = one_error && eval.temperature() == 0;
  plan.noise_seeds = seeds_repeat ? 1 : eval.noise_seeds();
  if (const auto injected = config::InjectedEvaluationOf(config)) {
    plan.injected_scale = injected->error_scale;
    plan.injected_seeds = injected->noise_seeds;
  }
  plan.questions_per_item = eval.questions_per_item();
  plan.every = eval.every();
  plan.planned_steps = config.trainer().total_updates();
  return plan;
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
  plan.step.max_rounds = trainer.dapo().dynamic_sampling() ? trainer.dapo().max_rounds() : 1;
  plan.step.planned_steps = trainer.total_updates();
  plan.retry.max_attempts = times.max_attempts();
  plan.retry.first_backoff = absl::Seconds(times.retry_backoff_seconds());
  plan.eval = EvalPlanOf(config, *plan.eval_questions);
  plan.groups_per_lease = config.rollout().groups_per_lease();
  plan.lease_duration = absl::Seconds(times.lease_seconds());
  plan.heartbeat_interval = absl::Seconds(times.heartbeat_seconds());
  plan.member_timeout = absl::Seconds(times.member_timeout_seconds());
  plan.no_worker_timeout = absl::Seconds(times.no_worker_timeout_seconds());
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
