#include "reward_server/reward_metrics.h"

#include <string>

namespace temper::reward_server {
namespace {

constexpr Rule kRules[] = {Rule::kStrict, Rule::kFlexible, Rule::kNumeric};

metrics::Counter* SampleCounter(metrics::MetricsRegistry* registry, Rule rule,
                                const std::string& outcome) {
  return &registry->AddCounter("temper_reward_samples_total",
                               "Samples scored, by rule and what became of them.",
                               {{"rule", std::string(RuleName(rule))}, {"outcome", outcome}});
}

}  // namespace

RewardMetrics::RewardMetrics(metrics::MetricsRegistry* registry)
    : score_seconds(registry->AddHistogram("temper_reward_score_seconds",
                                           "Time from a batch's arrival to its answer.")),
      queued_batches(
          registry->AddGauge("temper_reward_queued_batches", "Batches that wait for a thread.")) {
  for (const Rule rule : kRules) {
    samples_[static_cast<size_t>(rule)] = {
        .correct = SampleCounter(registry, rule, "correct"),
        .wrong = SampleCounter(registry, rule, "wrong"),
        .no_answer = SampleCounter(registry, rule, "no_answer"),
        .failed = SampleCounter(registry, rule, "failed"),
    };
  }
}

void RewardMetrics::Count(const RuleScores* scores) {
  for (const Rule rule : kRules) {
    const Outcomes& outcomes = samples_[static_cast<size_t>(rule)];
    if (scores == nullptr) {
      outcomes.failed->Increment();
    } else if (!scores->ByRule(rule).extracted) {
      outcomes.no_answer->Increment();
    } else if (scores->ByRule(rule).score > 0) {
      outcomes.correct->Increment();
    } else {
      outcomes.wrong->Increment();
    }
  }
}

}  // namespace temper::reward_server
