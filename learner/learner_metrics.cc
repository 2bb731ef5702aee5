#include "learner/learner_metrics.h"

#include <string>

#include "numerics/noise_rows.h"

namespace temper::learner {
namespace {

// Adds one row of the noise table.
void CountRow(metrics::MetricsRegistry* registry, const numerics::NoiseRowId& id,
              const numerics::NoiseRow& row) {
  const metrics::Labels labels = numerics::NoiseRowLabels(id);
  registry
      ->AddCounter("temper_learner_noise_calls_total",
                   "Runs of an operator in the learner, with or without error.", labels)
      .Increment(static_cast<double>(row.operator_calls));
  if (row.stats.elements == 0) return;
  registry
      ->AddCounter("temper_learner_noise_elements_total", "Elements offered to a row's error.",
                   labels)
      .Increment(static_cast<double>(row.stats.elements));
  registry->AddCounter("temper_learner_noise_changed_total", "Elements that it changed.", labels)
      .Increment(static_cast<double>(row.stats.changed));
  registry
      ->AddCounter("temper_learner_noise_error_square_total",
                   "Sum of the squares of a row's changes.", labels)
      .Increment(row.stats.sum_sq_error.value());
  registry
      ->AddCounter("temper_learner_noise_value_square_total",
                   "Sum of the squares of the values that it was offered.", labels)
      .Increment(row.stats.sum_sq_value.value());
}

}  // namespace

LearnerMetrics::LearnerMetrics(metrics::MetricsRegistry* r)
    : registry(r),
      step(r->AddGauge("temper_learner_step", "Steps closed.")),
      reward_mean(r->AddGauge("temper_learner_reward_mean", "Mean reward of the last step.")),
      accuracy_raw(r->AddGauge("temper_learner_accuracy_raw",
                               "Share of right answers among the last step's completions.")),
      format_rate(r->AddGauge("temper_learner_format_rate",
                              "Share of the last step's completions with a strict match.")),
      entropy_nats(r->AddGauge("temper_learner_entropy_nats", "Mean entropy per trained token.")),
      grad_norm(r->AddGauge("temper_learner_grad_norm", "Global gradient norm before clipping.")),
      learning_rate(r->AddGauge("temper_learner_learning_rate", "Of the last optimizer step.")),
      clip_fraction_low(r->AddGauge("temper_learner_clip_fraction_low",
                                    "Share of trained tokens clipped at 1 - clip_ratio_low.")),
      clip_fraction_high(r->AddGauge("temper_learner_clip_fraction_high",
                                     "Share of trained tokens clipped at 1 + clip_ratio_high.")),
      logprob_gap_mean_nats(r->AddGauge("temper_learner_logprob_gap_mean_nats",
                                        "Mean |learner - sampler| log-probability per token.")),
      logprob_gap_max_nats(r->AddGauge("temper_learner_logprob_gap_max_nats",
                                       "Largest |learner - sampler| log-probability.")),
      kl_sampler_learner_nats(r->AddGauge("temper_learner_kl_sampler_learner_nats",
                                          "KL(sampler || learner) per token, estimator k1.")),
      staleness_max_steps(r->AddGauge("temper_learner_staleness_max_steps",
                                      "Largest staleness of a trained group.")),
      groups_held(
          r->AddGauge("temper_learner_groups_held", "Groups admitted and not yet committed.")),
      aqn_sigma(r->AddGauge("temper_aqn_sigma", "AQN sigma of the newest version.")),
      update_seconds(r->AddHistogram("temper_learner_update_seconds", "Time of one update.")),
      wait_seconds(
          r->AddHistogram("temper_learner_wait_seconds", "Time a step waited for its groups.")),
      checkpoint_seconds(
          r->AddHistogram("temper_learner_checkpoint_seconds", "Time to write one checkpoint.")),
      ledger_copy_seconds(r->AddHistogram("temper_learner_ledger_copy_seconds",
                                          "Part of it that the ledger's copy took.")),
      checkpoints_without_ledger(r->AddCounter("temper_learner_checkpoints_without_ledger_total",
                                               "Checkpoints that hold no copy of the ledger.")),
      tokens_trained(
          r->AddCounter("temper_learner_tokens_trained_total", "Completion tokens in the loss.")),
      steps_skipped(r->AddCounter("temper_learner_steps_skipped_total",
                                  "Steps closed without a change of weights.")),
      broadcast_groups(
          r->AddCounter("temper_learner_broadcast_groups_total", "Broadcast groups that formed.")),
      broadcast_members(r->AddGauge("temper_learner_broadcast_members",
                                    "Workers in the broadcast group; 0 without one.")),
      broadcast_seconds(r->AddHistogram("temper_learner_broadcast_seconds",
                                        "From the start of a broadcast until every member has "
                                        "taken it.")) {}

void LearnerMetrics::Broadcast(std::string_view outcome) {
  registry
      ->AddCounter("temper_learner_broadcasts_total", "Broadcasts of a version, by outcome.",
                   {{"outcome", std::string(outcome)}})
      .Increment();
}

void LearnerMetrics::Submitted(std::string_view verdict) {
  registry
      ->AddCounter("temper_learner_submits_total", "Submitted groups by what became of them.",
                   {{"verdict", std::string(verdict)}})
      .Increment();
}

void LearnerMetrics::CountNoise(const numerics::NoiseCounters& counters) {
  for (int p = 0; p < numerics::kPhaseCount; ++p) {
    const auto phase = static_cast<numerics::Phase>(p);
    for (const auto direction : {numerics::Direction::kForward, numerics::Direction::kBackward}) {
      const numerics::ErrorStats stats = counters.Total(phase, direction);
      if (stats.elements == 0) continue;
      const metrics::Labels labels = {
          {"phase", std::string(numerics::PhaseName(phase))},
          {"direction", std::string(numerics::DirectionName(direction))}};
      registry->AddCounter("temper_noise_elements_total", "Elements offered to an error.", labels)
          .Increment(static_cast<double>(stats.elements));
      registry
          ->AddGauge("temper_noise_achieved_error_scale",
                     "Achieved relative error of the last step.", labels)
          .Set(stats.AchievedScale());
    }
  }
  for (const auto& [id, row] : counters.rows()) {
    if (id.phase != numerics::Phase::kRollout)
      CountRow(registry, id, row);  // those the workers show
  }
}

void LearnerMetrics::ShowQuantization(const std::vector<QuantizationSummary>& summaries) {
  const auto show_sqnr = [&](const std::string& format, const char* statistic, double value) {
    registry
        ->AddGauge("temper_learner_quantization_sqnr_db",
                   "SQNR that a number format would leave the decoder's linears, at the last "
                   "checkpoint.",
                   {{"format", format}, {"statistic", statistic}})
        .Set(value);
  };
  const auto show_dead_zone = [&](const std::string& format, const char* statistic, double value) {
    registry
        ->AddGauge("temper_learner_quantization_dead_zone_ratio",
                   "Share of their weights that it would make 0.",
                   {{"format", format}, {"statistic", statistic}})
        .Set(value);
  };
  for (const QuantizationSummary& summary : summaries) {
    show_sqnr(summary.format, "median", summary.sqnr_db_median);
    show_sqnr(summary.format, "least", summary.sqnr_db_least);
    show_dead_zone(summary.format, "median", summary.dead_zone_median);
    show_dead_zone(summary.format, "most", summary.dead_zone_most);
  }
}

void LearnerMetrics::ShowGapSplit(const GapSplit& split) {
  if (split.tokens == 0) return;
  for (const auto& [name, term] : split.Terms()) {
    const metrics::Labels labels = {{"term", name}};
    registry
        ->AddGauge("temper_learner_gap_probe_mean_nats",
                   "Signed part of the sampler-learner gap per token, at the last probe.", labels)
        .Set(split.MeanOver(term->sum));
    registry
        ->AddGauge("temper_learner_gap_probe_abs_mean_nats",
                   "Mean absolute part of the sampler-learner gap, at the last probe.", labels)
        .Set(split.MeanOver(term->abs_sum));
    registry
        ->AddGauge("temper_learner_gap_probe_abs_max_nats",
                   "Largest absolute part of the sampler-learner gap, at the last probe.", labels)
        .Set(term->abs_max);
  }
}

}  // namespace temper::learner
