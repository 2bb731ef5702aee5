#pragma once

#include <array>

#include "reward_server/scoring.h"
#include "services/metrics/registry.h"

namespace temper::reward_server {

// Metrics of the reward server. Thread-safe; the registry outlives it.
struct RewardMetrics {
  explicit RewardMetrics(metrics::MetricsRegistry* registry);

  // Counts one sample under every rule: correct, wrong, no_answer, or failed where `scores` is null
  // (it missed its deadline).
  void Count(const RuleScores* scores);

  metrics::Histogram& score_seconds;  // of a batch, from its arrival until it was answered
  metrics::Gauge& queued_batches;

 private:
  struct Outcomes {
    metrics::Counter* correct;
    metrics::Counter* wrong;
    metrics::Counter* no_answer;
    metrics::Counter* failed;
  };
  std::array<Outcomes, 3> samples_;  // by Rule
};

}  // namespace temper::reward_server
