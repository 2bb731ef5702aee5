#pragma once

#include <array>
#include <map>
#include <string>

#include "orchestrator/accounting.h"
#include "orchestrator/role.h"
#include "services/metrics/registry.h"

namespace temper::orchestrator {

// The orchestrator's Prometheus metrics; docs/metrics.md lists them. Thread-safe; the registry
// outlives it.
class OrchestratorMetrics final {
 public:
  explicit OrchestratorMetrics(metrics::MetricsRegistry* registry);

  // Gauges of where every attempt is, and whether the law of accounting holds.
  void SetAttempts(const Accounting& accounting);
  void SetMembers(Role role, int alive);
  void CountLease(const char* kind);            // "train" or "eval"
  void CountNoWork(const std::string& reason);  // of DecideLease: a small fixed set

  metrics::Gauge& step;
  metrics::Gauge& weights_version;
  metrics::Gauge& workers_behind;
  metrics::Gauge& accounting_violation;
  metrics::Counter& filter_examined;
  metrics::Counter& filter_kept;

 private:
  metrics::MetricsRegistry* const registry_;
  metrics::Gauge& leased_;
  metrics::Gauge& admitted_;
  std::array<metrics::Gauge*, kEndingCount> ended_{};  // by Ending; [kNone] is null
};

}  // namespace temper::orchestrator
