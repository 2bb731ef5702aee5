#include <algorithm>
#include <initializer_list>
#include <string>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "services/config/injection_plan.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"

namespace temper::config {
namespace {

// A unit in the last place of 1 in float32: a smaller relative error is rounded away.
constexpr double kLeastErrorScale = 0x1p-23;

// Collects what is wrong; one line each.
class Mistakes {
 public:
  void Require(bool holds, std::string what) {
    if (!holds) lines_.push_back(std::move(what));
  }
  void OneOf(absl::string_view key, const std::string& value,
             std::initializer_list<absl::string_view> allowed) {
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
      lines_.push_back(
          absl::StrCat(key, ": '", value, "' is none of ", absl::StrJoin(allowed, ", ")));
    }
  }
  void InRange(absl::string_view key, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
      lines_.push_back(absl::StrCat(key, ": ", value, " is outside ", low, " to ", high));
    }
  }
  void Add(const absl::Status& status) {
    if (!status.ok()) lines_.emplace_back(status.message());
  }
  absl::Status Status() const {
    return lines_.empty() ? absl::OkStatus()
                          : absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
  }

 private:
  std::vector<std::string> lines_;
};

void CheckData(const v1::RunConfig& c, Mistakes* m) {
  m->OneOf("model.chat_template", c.model().chat_template(), {"model", "plain"});
  m->OneOf("dataset.name", c.dataset().name(), {"gsm-arith", "gsm8k"});
  m->Require(c.dataset().name() != "gsm8k" || !c.dataset().path().empty(),
             "dataset.path: gsm8k is the public GSM8K data set (MIT licence); give the folder that "
             "holds its "
             "files train.jsonl and test.jsonl");
  m->InRange("dataset.min_steps", c.dataset().min_steps(), 1, c.dataset().max_steps());
  m->InRange("dataset.max_steps", c.dataset().max_steps(), 1, 4);
  m->InRange("dataset.max_number", c.dataset().max_number(), 2, 1000);
  m->InRange("dataset.wrong_share", c.dataset().wrong_share(), 0, 1);
}

void CheckRollout(const v1::RunConfig& c, Mistakes* m) {
  const v1::RolloutConfig& r = c.rollout();
  m->InRange("rollout.samples_per_group", r.samples_per_group(), 1, 1024);
  m->InRange("rollout.groups_per_lease", r.groups_per_lease(), 1, 1024);
  m->InRange("rollout.max_prompt_tokens", r.max_prompt_tokens(), 1, 1 << 20);
  m->InRange("rollout.max_completion_tokens", r.max_completion_tokens(), 1, 1 << 20);
  m->InRange("rollout.threads", r.threads(), 1, 1024);
  m->Require(r.temperature() > 0 && r.temperature() <= 10,
             "rollout.temperature: training samples at a temperature above 0 and up to 10");
  m->Require(r.top_p() == 1.0 && r.top_k() == 0 && r.min_p() == 0.0,
             "rollout.top_p, top_k, min_p: training samples the whole distribution (1, 0, 0): the "
             "learner cannot "
             "reproduce a cut one");
  m->OneOf("rollout.device", r.device(), {"cpu", "cuda"});
  m->OneOf("rollout.kv_after_swap", r.kv_after_swap(), {"keep", "recompute"});
  m->OneOf("reward.rule", c.reward().rule(), {"strict", "flexible", "numeric"});
  m->Require(c.reward().overlong_cache_tokens() < r.max_completion_tokens(),
             "reward.overlong_cache_tokens: must be below rollout.max_completion_tokens");
  m->InRange("reward.overlong_factor", c.reward().overlong_factor(), 0, 100);
  m->InRange("reward.sample_timeout_seconds", c.reward().sample_timeout_seconds(), 0.001, 3600);
}

void CheckTrainer(const v1::RunConfig& c, Mistakes* m) {
  const v1::TrainerConfig& t = c.trainer();
  m->OneOf("trainer.loss", t.loss(), {"dapo", "sft"});
  m->InRange("trainer.epochs", t.epochs(), 1, 1e9);
  m->InRange("trainer.groups_per_step", t.groups_per_step(), 1, 1 << 20);
  m->InRange("trainer.minibatches_per_step", t.minibatches_per_step(), 1, t.groups_per_step());
  m->InRange("trainer.max_staleness", t.max_staleness(), 0, 1000);
  m->InRange("trainer.micro_batch_tokens", t.micro_batch_tokens(), 1, 1 << 30);
  m->InRange("trainer.threads", t.threads(), 1, 1024);
  m->OneOf("trainer.device", t.device(), {"cpu", "cuda"});
  m->InRange("trainer.gap_probe_groups", t.gap_probe_groups(), 1, 1 << 20);
  m->OneOf("trainer.learner_noise", t.learner_noise(), {"same", "fresh", "none"});
  m->InRange("trainer.sft.problems_per_step", t.sft().problems_per_step(), 1, 1 << 20);

  const v1::OptimizerConfig& o = t.optimizer();
  m->InRange("trainer.optimizer.learning_rate", o.learning_rate(), 0, 10);
  m->InRange("trainer.optimizer.beta1", o.beta1(), 0, 0.999999);
  m->InRange("trainer.optimizer.beta2", o.beta2(), 0, 0.9999999);
  m->InRange("trainer.optimizer.epsilon", o.epsilon(), 1e-30, 1);
  m->InRange("trainer.optimizer.weight_decay", o.weight_decay(), 0, 10);
  m->InRange("trainer.optimizer.max_grad_norm", o.max_grad_norm(), 1e-12, 1e12);

  const v1::DapoConfig& d = t.dapo();
  m->InRange("trainer.dapo.clip_ratio_low", d.clip_ratio_low(), 0, 1);
  m->InRange("trainer.dapo.clip_ratio_high", d.clip_ratio_high(), 0, 100);
  m->InRange("trainer.dapo.dual_clip", d.dual_clip(), 1, 1e6);
  m->InRange("trainer.dapo.max_rounds", d.max_rounds(), 1, 1000);
  m->OneOf("trainer.dapo.loss_aggregation", d.loss_aggregation(),
           {"token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "constant"});
  m->OneOf("trainer.dapo.importance_sampling", d.importance_sampling(),
           {"token", "sequence", "none"});
  m->InRange("trainer.dapo.importance_cap", d.importance_cap(), 1e-6, 1e6);
  m->OneOf("trainer.dapo.old_logprob", d.old_logprob(), {"current", "recomputed", "recorded"});
  m->Require(d.old_logprob() != "current" || t.minibatches_per_step() == 1,
             "trainer.dapo.old_logprob: 'current' means one optimizer step per step; with "
             "trainer.minibatches_per_step above 1 use recomputed or recorded");
  m->InRange("trainer.dapo.kl_coefficient", d.kl_coefficient(), 0, 1e3);
}

// The error type and its parameters, in training and as the evaluations name its strength.
void CheckOperatorError(const v1::RunConfig& c, Mistakes* m) {
  const v1::NoisyOpsConfig& noisy = c.trainer().noisy_ops();
  m->OneOf("trainer.noisy_ops.error_type", noisy.error_type(),
           {"relative_gaussian", "absolute_gaussian", "systematic_bias", "truncation", "deadzone",
            "saturation", "spike"});
  m->InRange("trainer.noisy_ops.error_scale", noisy.error_scale(), 0, 10);
  m->InRange("trainer.noisy_ops.fault_magnitude", noisy.fault_magnitude(), 0, 1e6);
  m->InRange("trainer.noisy_ops.spike_probability", noisy.spike_probability(), 0x1p-32, 1);
  const absl::StatusOr<numerics::OperatorError> error = ErrorFromConfig(noisy);
  if (!error.ok()) return;  // said above
  const std::string key =
      absl::StrCat("trainer.noisy_ops.", std::string(numerics::StrengthName(error->type)));
  const absl::Status strength = numerics::CheckStrength(error->type, ErrorStrength(noisy));
  m->Require(strength.ok(), absl::StrCat(key, ": ", strength.message()));
  const bool of_x = error->linear() || error->type == numerics::ErrorType::kSaturation;
  m->Require(
      !noisy.enabled() || !of_x || !error->acts() || error->strength >= kLeastErrorScale,
      absl::StrCat(key, ": below the precision of float32 (2^-23): it would change nothing"));
  for (const double scale : c.eval().error_scales()) {
    const absl::Status evaluated = numerics::CheckStrength(error->type, scale);
    m->Require(evaluated.ok(), absl::StrCat("eval.error_scales: as trainer.noisy_ops.error_type "
                                            "says, a strength: ",
                                            evaluated.message()));
  }
}

void CheckInjection(const v1::RunConfig& c, Mistakes* m) {
  const v1::HwErrorInjectionConfig& h = c.trainer().hw_error_injection();
  const std::string block = "trainer.hw_error_injection.";
  m->OneOf(block + "error_type", h.error_type(),
           {"mxfp4", "nvfp4", "fp8", "relative_gaussian", "absolute_gaussian", "systematic_bias",
            "truncation", "deadzone", "saturation", "spike"});
  m->OneOf(block + "injection_point", h.injection_point(), {"input", "output", "weight", "both"});
  m->OneOf(block + "apply_during", h.apply_during(), {"rollout", "training", "both"});
  m->InRange(block + "error_scale", h.error_scale(), 0, 10);
  m->InRange(block + "fault_magnitude", h.fault_magnitude(), 0, 1e6);
  m->InRange(block + "spike_probability", h.spike_probability(), 0x1p-32, 1);
  const absl::StatusOr<numerics::InjectionSpec> spec = InjectionSpecFromConfig(c);
  if (!spec.ok() || !h.enabled()) return;  // said above
  m->Add(numerics::InjectionPolicy::Check(*spec));
  const numerics::OperatorError& error = spec->error;
  const bool of_x = error.linear() || error.type == numerics::ErrorType::kSaturation;
  m->Require(
      spec->format.has_value() || !of_x || !error.acts() || error.strength >= kLeastErrorScale,
      absl::StrCat(block, std::string(numerics::StrengthName(error.type)),
                   ": below the precision of float32 (2^-23): it would change nothing"));
}

void CheckNoise(const v1::RunConfig& c, Mistakes* m) {
  const v1::TrainerConfig& t = c.trainer();
  CheckOperatorError(c, m);
  m->OneOf("trainer.noisy_ops.apply_during", t.noisy_ops().apply_during(),
           {"rollout", "training", "both"});
  m->OneOf("trainer.noisy_ops.error_gradient", t.noisy_ops().error_gradient(),
           {"pathwise", "straight_through"});
  m->OneOf("trainer.noisy_ops.noise_key", t.noisy_ops().noise_key(), {"fresh", "frozen"});
  m->OneOf("trainer.noisy_ops.gaussian", t.noisy_ops().gaussian(), {"exact", "fast"});

  CheckInjection(c, m);
  const v1::NoiseInjectionConfig& aqn = t.noise_injection();
  m->Require(!aqn.enabled() || aqn.draw() != "per_worker" || t.max_staleness() > 0,
             "trainer.noise_injection.draw: per_worker makes a synchronous run depend on who "
             "samples a group; it needs trainer.max_staleness above 0");
  m->Require(!aqn.enabled() || aqn.where() != "both" || t.max_staleness() == 0,
             "trainer.noise_injection.where: both takes groups of one version; it needs "
             "trainer.max_staleness 0");
  m->Require(
      !aqn.enabled() || t.loss() != "sft",
      "trainer.noise_injection: AQN perturbs what rollouts sample with; trainer.loss sft has "
      "no rollouts");
  if (m->Status().ok()) m->Add(AqnPlanFromConfig(c, {.num_layers = -1}).status());
}

void CheckLora(const v1::RunConfig& c, Mistakes* m) {
  const v1::LoraConfig& lora = c.trainer().lora();
  m->InRange("trainer.lora.rank", lora.rank(), 1, 1 << 20);
  m->Require(lora.alpha() > 0 && lora.alpha() <= 1e6,
             "trainer.lora.alpha: must be above 0 and up to 1e6");
  m->Require(!lora.enabled() || !c.trainer().sft().fresh_weights(),
             "trainer.sft.fresh_weights: adapters need a base that has been trained; with "
             "trainer.lora the weights of model.path are frozen");
}

void CheckServices(const v1::RunConfig& c, Mistakes* m) {
  m->InRange("eval.questions_per_item", c.eval().questions_per_item(), 1, 4096);
  m->InRange("eval.noise_seeds", c.eval().noise_seeds(), 1, 1000);
  m->InRange("eval.temperature", c.eval().temperature(), 0, 10);
  m->InRange("eval.max_completion_tokens", c.eval().max_completion_tokens(), 1, 1 << 20);
  for (const double scale : c.eval().error_scales()) m->InRange("eval.error_scales", scale, 0, 10);
  m->OneOf("weights.broadcaster", c.weights().broadcaster(), {"grpc", "shared_memory", "nccl"});
  m->InRange("weights.bucket_bytes", static_cast<double>(c.weights().bucket_bytes()), 1 << 10,
             1LL << 32);
  m->InRange("weights.chunk_bytes", c.weights().chunk_bytes(), 1 << 10, 3 << 20);
  m->InRange("weights.broadcast_timeout_seconds", c.weights().broadcast_timeout_seconds(), 0.1,
             1e5);
  const v1::OrchestratorConfig& o = c.orchestrator();
  m->InRange("orchestrator.lease_seconds", o.lease_seconds(), 0.1, 1e6);
  m->InRange("orchestrator.heartbeat_seconds", o.heartbeat_seconds(), 0.01, 1e4);
  m->Require(o.member_timeout_seconds() > o.heartbeat_seconds(),
             "orchestrator.member_timeout_seconds: must be above orchestrator.heartbeat_seconds");
  m->Require(
      o.lease_seconds() > 2 * o.heartbeat_seconds(),
      "orchestrator.lease_seconds: must be above twice orchestrator.heartbeat_seconds, which "
      "renew it");
  m->InRange("orchestrator.no_worker_timeout_seconds", o.no_worker_timeout_seconds(), 0, 1e9);
  m->InRange("local.restart_window_seconds", c.local().restart_window_seconds(), 0, 1e9);
  m->InRange("orchestrator.max_attempts", o.max_attempts(), 1, 1000);
  m->InRange("orchestrator.retry_backoff_seconds", o.retry_backoff_seconds(), 0, 3600);
  m->InRange("local.rollout_workers", c.local().rollout_workers(), 0, 256);
  m->InRange("local.reward_servers", c.local().reward_servers(), 1, 64);
}

// Whether AQN is to act on the weight of a linear, of whatever model.
bool AqnOfLinears(const v1::RunConfig& config) {
  const v1::NoiseInjectionConfig& aqn = config.trainer().noise_injection();
  const auto plan = AqnPlanFromConfig(config, {.num_layers = -1});
  if (!plan.ok()) return false;  // said by Validate
  const auto linears = numerics::AqnLinears({.num_layers = numerics::kMaxSiteIndex});
  return aqn.force() ||
         std::any_of(linears.begin(), linears.end(), [&](const numerics::AqnTarget& linear) {
           return numerics::IsAqnSelected(*plan, linear);
         });
}

}  // namespace

absl::Status Validate(const v1::RunConfig& config) {
  Mistakes mistakes;
  CheckData(config, &mistakes);
  CheckRollout(config, &mistakes);
  CheckTrainer(config, &mistakes);
  CheckNoise(config, &mistakes);
  CheckLora(config, &mistakes);
  CheckServices(config, &mistakes);
  return mistakes.Status();
}

std::vector<std::string> Unbuilt(const v1::RunConfig& config) {
  std::vector<std::string> lines;
  const auto note = [&](bool asked, std::string what) {
    if (asked) lines.push_back(absl::StrCat(what, ": not built yet; `temper run` refuses it"));
  };
  const v1::TrainerConfig& t = config.trainer();
  note(t.noisy_ops().enabled() && t.noisy_ops().all_ops(), "trainer.noisy_ops.all_ops");
  note(t.noise_injection().enabled() && AqnOfLinears(config),
       "trainer.noise_injection of linears (layer_types, target_modules, force)");
  note(t.dapo().kl_coefficient() != 0, "trainer.dapo.kl_coefficient above 0 (a reference model)");
  note(config.rollout().device() == "cuda" || t.device() == "cuda", "device cuda");
  note(config.rollout().kv_after_swap() == "recompute", "rollout.kv_after_swap recompute");
  return lines;
}

}  // namespace temper::config
