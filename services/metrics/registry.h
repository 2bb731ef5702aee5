#pragma once

// The process's metrics. Each room has one struct of metrics, built from a MetricsRegistry that is
// handed to it; nothing is global.
//
//   struct LearnerMetrics {
//     explicit LearnerMetrics(metrics::MetricsRegistry* registry)
//         : steps(registry->AddCounter("temper_learner_steps_total", "Steps closed.")) {}
//     metrics::Counter& steps;
//   };

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace temper::metrics {

// Thread-safe, all three; updates cost an atomic operation (Histogram: a short lock).
using Counter = prometheus::Counter;      // Increment(by), by >= 0
using Gauge = prometheus::Gauge;          // Set, Increment, Decrement
using Histogram = prometheus::Histogram;  // Observe

// Label names and values, both from small fixed sets (an ending, a method; never an id).
using Labels = std::map<std::string, std::string>;

// Upper bounds in seconds, 1 ms to 2 minutes, about three to a decade: fits RPCs as well as steps.
std::vector<double> SecondsBuckets();

// 0, 1, 2, 4, ... up to `largest`: for counts such as staleness or groups per batch.
std::vector<double> CountBuckets(double largest);

// Owns every metric of a process. Thread-safe. References it returns live as long as it does.
//
// Add* with a name and labels that exist already returns the same metric, so a series may be looked
// up where it is used; that takes a lock and a map look-up, so keep the reference on hot paths.
// Names begin with "temper_", counters end in "_total", times are seconds and end in "_seconds";
// a name that breaks the rule, or is used for two types, is a bug of ours and ends the process.
class MetricsRegistry final {
 public:
  MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  Counter& AddCounter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& AddGauge(std::string_view name, std::string_view help, const Labels& labels = {});
  Histogram& AddHistogram(std::string_view name, std::string_view help,
                          const std::vector<double>& upper_bounds = SecondsBuckets(),
                          const Labels& labels = {});

  // All metrics in Prometheus' text format, version 0.0.4.
  std::string Serialize() const;

 private:
  std::unique_ptr<prometheus::Registry> registry_;
};

}  // namespace temper::metrics
