#pragma once

#include <string>

#include "numerics/noise_counters.h"
#include "services/metrics/registry.h"

namespace temper::rollout_worker {

// The worker's metrics. Thread-safe; the registry outlives it.
struct WorkerMetrics {
  explicit WorkerMetrics(metrics::MetricsRegistry* registry);

  // Groups by how the worker parted from them: admitted, zero_variance, stale, refused, superseded
  // (the learner's verdicts), generation_failed, reward_failed, lease_lost; eval_item for an
  // evaluation item.
  void CountGroup(const std::string& outcome);

  // Weight versions by how they came: broadcast, pull.
  void CountReceived(const std::string& way);

  // Adds what one lease counted, row by row.
  void CountNoise(const numerics::NoiseCounters& counters);

  metrics::Counter& tokens;
  metrics::Histogram& generate_seconds;
  metrics::Histogram& score_seconds;
  metrics::Histogram& acquire_wait_seconds;
  metrics::Gauge& weights_version;
  metrics::Histogram& weights_pull_seconds;
  metrics::Counter& weight_swaps;
  metrics::Gauge& deliveries_waiting;
  metrics::MetricsRegistry* const registry;
};

}  // namespace temper::rollout_worker
