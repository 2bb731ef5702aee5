#include "rollout_worker/worker_metrics.h"

#include "numerics/noise_rows.h"

namespace temper::rollout_worker {

WorkerMetrics::WorkerMetrics(metrics::MetricsRegistry* registry)
    : tokens(registry->AddCounter("temper_rollout_tokens_total", "Completion tokens generated.")),
      generate_seconds(registry->AddHistogram("temper_rollout_generate_seconds",
                                              "Generating the completions of one lease.")),
      score_seconds(registry->AddHistogram(
          "temper_rollout_score_seconds",
          "Scoring the completions of one lease, waits for a reward server included.")),
      acquire_wait_seconds(
          registry->AddHistogram("temper_rollout_acquire_wait_seconds", "Waiting for a lease.")),
      weights_version(registry->AddGauge("temper_rollout_weights_version",
                                         "Policy version installed and acknowledged.")),
      weights_pull_seconds(
          registry->AddHistogram("temper_rollout_weights_pull_seconds",
                                 "From a manifest until its version was received and verified.")),
      weight_swaps(registry->AddCounter("temper_rollout_weight_swaps_total",
                                        "Times newer weights were taken up inside a lease.")),
      deliveries_waiting(registry->AddGauge(
          "temper_rollout_deliveries_waiting",
          "Generated leases that wait to be scored and submitted; at most one.")),
      registry(registry) {}

void WorkerMetrics::CountGroup(const std::string& outcome) {
  registry
      ->AddCounter("temper_rollout_groups_total", "Groups by how the worker parted from them.",
                   {{"outcome", outcome}})
      .Increment();
}

void WorkerMetrics::CountReceived(const std::string& way) {
  registry
      ->AddCounter("temper_rollout_weights_received_total", "Weight versions by how they came.",
                   {{"way", way}})
      .Increment();
}

void WorkerMetrics::CountNoise(const numerics::NoiseCounters& counters) {
  for (const auto& [id, row] : counters.rows()) {
    const metrics::Labels labels = numerics::NoiseRowLabels(id);
    registry
        ->AddCounter("temper_rollout_noise_calls_total",
                     "Runs of an operator in this worker, with or without error.", labels)
        .Increment(static_cast<double>(row.operator_calls));
    if (row.stats.elements == 0) continue;
    registry
        ->AddCounter("temper_rollout_noise_elements_total", "Elements offered to a row's error.",
                     labels)
        .Increment(static_cast<double>(row.stats.elements));
    registry->AddCounter("temper_rollout_noise_changed_total", "Elements that it changed.", labels)
        .Increment(static_cast<double>(row.stats.changed));
    registry
        ->AddCounter("temper_rollout_noise_error_square_total",
                     "Sum of the squares of a row's changes.", labels)
        .Increment(row.stats.sum_sq_error.value());
    registry
        ->AddCounter("temper_rollout_noise_value_square_total",
                     "Sum of the squares of the values that it was offered.", labels)
        .Increment(row.stats.sum_sq_value.value());
  }
}

}  // namespace temper::rollout_worker
