#include "services/config/defaults.h"

#include <algorithm>
#include <string>

#include "services/config/noise_plan.h"

namespace temper::config {
namespace {

// GSM8K's training questions (the public data set's size).
constexpr uint64_t kGsm8kTrainProblems = 7473;
constexpr char kGsm8kSuffix[] =
    "Let's think step by step and output the final answer after \"####\".";

// SET(block, field, value): gives the field its default.
#define SET(block, field, value) \
  if (!(block)->has_##field()) (block)->set_##field(value)

void FillDataset(v1::DatasetConfig* d) {
  SET(d, name, "gsm-arith");
  SET(d, path, "");
  SET(d, seed, 7);
  SET(d, min_steps, 1);
  SET(d, max_steps, 3);
  SET(d, max_number, 20);
  SET(d, wrong_share, 0.0);
  SET(d, train_problems, 0);
  SET(d, prompt_suffix, d->name() == "gsm8k" ? kGsm8kSuffix : "");
}

void FillRollout(v1::RolloutConfig* r) {
  SET(r, samples_per_group, 8);
  SET(r, groups_per_lease, 8);
  SET(r, max_prompt_tokens, 512);
  SET(r, max_completion_tokens, 256);
  SET(r, temperature, 1.0);
  SET(r, top_p, 1.0);
  SET(r, top_k, 0);
  SET(r, min_p, 0.0);
  SET(r, threads, 1);
  SET(r, device, "cpu");
  SET(r, kv_after_swap, "keep");
}

void FillReward(v1::RewardConfig* r) {
  SET(r, rule, "strict");
  SET(r, overlong_cache_tokens, 0);
  SET(r, overlong_factor, 1.0);
  SET(r, sample_timeout_seconds, 5.0);
}

void FillOptimizer(v1::OptimizerConfig* o) {
  SET(o, learning_rate, 1e-4);
  SET(o, beta1, 0.9);
  SET(o, beta2, 0.999);
  SET(o, epsilon, 1e-8);
  SET(o, weight_decay, 0.1);
  SET(o, max_grad_norm, 1.0);
  SET(o, warmup_steps, 0);
}

void FillNoisyOps(v1::NoisyOpsConfig* n) {
  SET(n, enabled, false);
  SET(n, error_scale, 0.05);
  SET(n, error_type, "relative_gaussian");
  SET(n, apply_during, "both");
  SET(n, forward_only, false);
  SET(n, backward_only, false);
  SET(n, all_ops, false);
  SET(n, error_gradient, "pathwise");
  SET(n, noise_key, "fresh");
  SET(n, fault_magnitude, 0.1);
  SET(n, spike_probability, 0.001);
  SET(n, deadzone_threshold, 0.01);
  SET(n, relative, false);
  SET(n, gaussian, "exact");
}

void FillHwErrorInjection(v1::HwErrorInjectionConfig* h) {
  SET(h, enabled, false);
  SET(h, error_scale, 0.0);
  SET(h, error_type, "mxfp4");
  SET(h, injection_point, "weight");
  SET(h, apply_during, "both");
  SET(h, deadzone_threshold, 0.01);
  SET(h, stochastic_rounding, false);
  SET(h, block_2d, false);
  SET(h, fault_magnitude, 0.1);
  SET(h, spike_probability, 0.001);
  SET(h, relative, false);
}

void FillNoiseInjection(v1::NoiseInjectionConfig* n) {
  SET(n, enabled, false);
  SET(n, schedule, n->epoch_aware() ? "epoch_aware" : "global");
  n->set_epoch_aware(n->schedule() == "epoch_aware");
  SET(n, sigma_start, 0.05);
  SET(n, sigma_end, 0.0005);
  SET(n, num_stages, 10);
  SET(n, stages_per_epoch, 5);
  if (n->layer_types().empty()) n->add_layer_types("rmsnorm");
  v1::LayerSigmaConfig* layers = n->mutable_layer_sigma_config();
  SET(layers, enabled, false);
  SET(layers, default_multiplier, 1.0);
  SET(layers, preset, "");
  SET(layers, scan_file, "");
  SET(n, sigma_mode, "absolute");
  SET(n, draw, "per_version");
  SET(n, where, "rollout");
  SET(n, final_norm, true);
  SET(n, force, false);
}

void FillLora(v1::LoraConfig* l) {
  SET(l, enabled, false);
  SET(l, rank, 32);
  SET(l, alpha, 16.0);
  SET(l, adapter, "");
}

// T = E P unless given; what is missing follows from what is there.
void FillHorizon(const v1::RunConfig& config, v1::TrainerConfig* t) {
  const uint64_t of_dataset = UpdatesPerEpochOfDataset(config);
  if (!t->has_updates_per_epoch()) {
    if (of_dataset > 0) {
      t->set_updates_per_epoch(of_dataset);
    } else {
      SET(t, total_updates, 60);
      SET(t, epochs, 2);
      t->set_updates_per_epoch(
          std::max<uint64_t>(1, t->total_updates() / std::max<uint64_t>(1, t->epochs())));
    }
  }
  const uint64_t per_epoch = std::max<uint64_t>(1, t->updates_per_epoch());
  if (!t->has_epochs()) {
    t->set_epochs(t->has_total_updates() ? (t->total_updates() + per_epoch - 1) / per_epoch : 1);
    if (t->epochs() == 0) t->set_epochs(1);
  }
  SET(t, total_updates, t->epochs() * t->updates_per_epoch());
}

void FillTrainer(v1::RunConfig* config) {
  v1::TrainerConfig* t = config->mutable_trainer();
  SET(t, loss, "dapo");
  SET(t, groups_per_step, 32);
  FillHorizon(*config, t);
  SET(t, minibatches_per_step, 1);
  SET(t, max_staleness, 0);
  SET(t, micro_batch_tokens, 8192);
  SET(t, threads, 2);
  SET(t, device, "cpu");
  FillOptimizer(t->mutable_optimizer());
  FillNoisyOps(t->mutable_noisy_ops());
  FillHwErrorInjection(t->mutable_hw_error_injection());
  FillNoiseInjection(t->mutable_noise_injection());
  FillLora(t->mutable_lora());
  SET(t, learner_noise, "same");
  SET(t, null_arm, false);
  SET(t, gap_probe_groups, 2);
  // On the quickstart recipe a probe takes 1.6 % of a step, so every tenth is 0.2 % of the run.
  SET(t, gap_probe_every, 10);
  SET(t->mutable_sft(), problems_per_step, 64);
  SET(t->mutable_sft(), fresh_weights, false);

  v1::DapoConfig* d = t->mutable_dapo();
  SET(d, clip_ratio_low, 0.2);
  SET(d, clip_ratio_high, 0.28);
  SET(d, dual_clip, 10.0);
  SET(d, norm_by_std, true);
  SET(d, dynamic_sampling, true);
  SET(d, max_rounds, 3);
  SET(d, mask_truncated, false);
  SET(d, loss_aggregation, "token-mean");
  SET(d, importance_cap, 2.0);
  SET(d, kl_coefficient, 0.0);
  SET(d, old_logprob, t->minibatches_per_step() > 1 ? "recomputed" : "current");
  // Sampler and learner are one function only if nothing can come between them.
  const bool aqn_differs = t->noise_injection().enabled() && t->noise_injection().where() != "both";
  const auto differs = [&](const auto& block) {
    return block.enabled() && (t->learner_noise() != "same" || block.apply_during() != "both");
  };
  const bool same_function = t->max_staleness() == 0 && !aqn_differs && !differs(t->noisy_ops()) &&
                             !differs(t->hw_error_injection());
  const bool weighted = !same_function && d->old_logprob() != "recorded";
  SET(d, importance_sampling, weighted ? "token" : "none");
}

void FillEval(const v1::RunConfig& config, v1::EvalConfig* e) {
  SET(e, enabled, true);
  SET(e, questions, 200);
  SET(e, noise_seeds, 3);
  SET(e, every, 0);
  SET(e, max_completion_tokens, config.rollout().max_completion_tokens());
  SET(e, questions_per_item, 64);
  SET(e, temperature, 0.0);
  if (e->error_scales().empty()) {
    for (const double scale : {0.0, 0.05, 0.10}) e->add_error_scales(scale);
    const v1::NoisyOpsConfig& noise = config.trainer().noisy_ops();
    const double strength = ErrorStrength(noise);
    if (noise.enabled() && std::find(e->error_scales().begin(), e->error_scales().end(),
                                     strength) == e->error_scales().end()) {
      e->add_error_scales(strength);
    }
  }
}

void FillServices(v1::RunConfig* config) {
  v1::WeightsConfig* w = config->mutable_weights();
  SET(w, broadcaster, "grpc");
  SET(w, bucket_bytes, 32 << 20);
  SET(w, chunk_bytes, 1 << 20);
  SET(w, broadcast_timeout_seconds, 60.0);
  v1::OrchestratorConfig* o = config->mutable_orchestrator();
  SET(o, state_dir, config->run_dir());
  SET(o, lease_seconds, 120.0);
  SET(o, heartbeat_seconds, 1.0);
  SET(o, member_timeout_seconds, 10.0);
  SET(o, max_attempts, 5);
  SET(o, retry_backoff_seconds, 0.5);
  SET(o, no_worker_timeout_seconds, 600.0);
  v1::CheckpointConfig* c = config->mutable_checkpoint();
  SET(c, every, 10);
  SET(c, keep, 2);
  v1::LocalConfig* l = config->mutable_local();
  SET(l, rollout_workers, 1);
  SET(l, reward_servers, 1);
  SET(l, max_restarts, 5);
  SET(l, restart_window_seconds, 60.0);
  v1::NetworkConfig* n = config->mutable_network();
  SET(n, listen_host, "127.0.0.1");
  SET(n, insecure_network, false);
  SET(n, tls_certificate, "");
  SET(n, tls_key, "");
  SET(n, tls_ca, "");
}

}  // namespace

uint64_t UpdatesPerEpochOfDataset(const v1::RunConfig& config) {
  const uint64_t given = config.dataset().train_problems();
  const uint64_t problems =
      given > 0 ? given : (config.dataset().name() == "gsm8k" ? kGsm8kTrainProblems : 0);
  const uint64_t groups = std::max<uint32_t>(1, config.trainer().groups_per_step());
  return problems / groups;
}

void FillDefaults(v1::RunConfig* config) {
  SET(config, run_dir, "");
  SET(config, seed, 1);
  SET(config->mutable_model(), path, "");
  SET(config->mutable_model(), chat_template, "model");
  FillDataset(config->mutable_dataset());
  FillRollout(config->mutable_rollout());
  FillReward(config->mutable_reward());
  FillTrainer(config);
  FillEval(*config, config->mutable_eval());
  FillServices(config);
}
#undef SET

}  // namespace temper::config
