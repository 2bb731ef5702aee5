#include "services/metrics/registry.h"

#include "prometheus/text_serializer.h"
#include "services/base/check.h"

namespace temper::metrics {
namespace {

// Snake case with our prefix, so that a typo in a name shows at the first start.
bool FollowsConvention(std::string_view name) {
  return name.starts_with("temper_") &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos;
}

}  // namespace

std::vector<double> SecondsBuckets() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120};
}

std::vector<double> CountBuckets(double largest) {
  std::vector<double> bounds = {0};
  for (double bound = 1; bound < largest; bound *= 2) bounds.push_back(bound);
  bounds.push_back(largest);
  return bounds;
}

MetricsRegistry::MetricsRegistry()
    : registry_(
          std::make_unique<prometheus::Registry>(prometheus::Registry::InsertBehavior::Merge)) {}

Counter& MetricsRegistry::AddCounter(std::string_view name, std::string_view help,
                                     const Labels& labels) {
  TEMPER_CHECK(FollowsConvention(name) && name.ends_with("_total"),
               "a counter is named temper_..._total");
  return prometheus::BuildCounter()
      .Name(std::string(name))
      .Help(std::string(help))
      .Register(*registry_)
      .Add(labels);
}

Gauge& MetricsRegistry::AddGauge(std::string_view name, std::string_view help,
                                 const Labels& labels) {
  TEMPER_CHECK(FollowsConvention(name) && !name.ends_with("_total"),
               "a gauge is named temper_..., without _total");
  return prometheus::BuildGauge()
      .Name(std::string(name))
      .Help(std::string(help))
      .Register(*registry_)
      .Add(labels);
}

Histogram& MetricsRegistry::AddHistogram(std::string_view name, std::string_view help,
                                         const std::vector<double>& upper_bounds,
                                         const Labels& labels) {
  TEMPER_CHECK(FollowsConvention(name) && !name.ends_with("_total"),
               "a histogram is named temper_..., without _total");
  return prometheus::BuildHistogram()
      .Name(std::string(name))
      .Help(std::string(help))
      .Register(*registry_)
      .Add(labels, upper_bounds);
}

std::string MetricsRegistry::Serialize() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

}  // namespace temper::metrics
