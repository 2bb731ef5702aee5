#pragma once

// The learner's Prometheus metrics. Thread-safe. docs/metrics.md lists them.

#include <string_view>
#include <vector>

#include "learner/gap_split.h"
#include "learner/weight_quantization.h"
#include "numerics/noise_counters.h"
#include "services/metrics/registry.h"

namespace temper::learner {

struct LearnerMetrics {
  explicit LearnerMetrics(metrics::MetricsRegistry* registry);

  // Counts one answered submit. verdict: as member::VerdictName.
  void Submitted(std::string_view verdict);
  // Counts one broadcast, or a group that did not form. outcome: of learner/broadcast_policy.h.
  void Broadcast(std::string_view outcome);
  // Adds a step's counts and shows its achieved scales, by phase and direction; of the learner's
  // own passes also each row.
  void CountNoise(const numerics::NoiseCounters& counters);
  // Shows what number formats would make of the weights.
  void ShowQuantization(const std::vector<QuantizationSummary>& summaries);
  // Shows what a probe found, by term; a probe without tokens leaves what stands there.
  void ShowGapSplit(const GapSplit& split);

  metrics::MetricsRegistry* const registry;
  metrics::Gauge& step;
  metrics::Gauge& reward_mean;
  metrics::Gauge& accuracy_raw;
  metrics::Gauge& format_rate;
  metrics::Gauge& entropy_nats;
  metrics::Gauge& grad_norm;
  metrics::Gauge& learning_rate;
  metrics::Gauge& clip_fraction_low;
  metrics::Gauge& clip_fraction_high;
  metrics::Gauge& logprob_gap_mean_nats;
  metrics::Gauge& logprob_gap_max_nats;
  metrics::Gauge& kl_sampler_learner_nats;
  metrics::Gauge& staleness_max_steps;
  metrics::Gauge& groups_held;
  metrics::Gauge& aqn_sigma;
  metrics::Histogram& update_seconds;
  metrics::Histogram& wait_seconds;
  metrics::Histogram& checkpoint_seconds;
  metrics::Histogram& ledger_copy_seconds;
  metrics::Counter& checkpoints_without_ledger;
  metrics::Counter& tokens_trained;
  metrics::Counter& steps_skipped;
  metrics::Counter& broadcast_groups;
  metrics::Gauge& broadcast_members;
  metrics::Histogram& broadcast_seconds;
};

}  // namespace temper::learner
