#include "services/metrics/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(MetricsRegistryTest, SerializesAllThreeKinds) {
  MetricsRegistry registry;
  registry.AddCounter("temper_test_groups_total", "Groups.", {{"outcome", "trained"}}).Increment(3);
  registry.AddGauge("temper_test_step", "Step.").Set(7);
  registry.AddHistogram("temper_test_wait_seconds", "Waits.", {0.1, 1}).Observe(0.5);
  const std::string text = registry.Serialize();
  EXPECT_THAT(text, HasSubstr("# TYPE temper_test_groups_total counter\n"));
  EXPECT_THAT(text, HasSubstr("temper_test_groups_total{outcome=\"trained\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("temper_test_step 7\n"));
  EXPECT_THAT(text, HasSubstr("temper_test_wait_seconds_bucket{le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("temper_test_wait_seconds_bucket{le=\"1\"} 1\n"));
}

TEST(MetricsRegistryTest, SameNameAndLabelsAreTheSameMetric) {
  MetricsRegistry registry;
  Counter& first = registry.AddCounter("temper_test_a_total", "A.", {{"x", "1"}});
  Counter& again = registry.AddCounter("temper_test_a_total", "A.", {{"x", "1"}});
  Counter& other = registry.AddCounter("temper_test_a_total", "A.", {{"x", "2"}});
  EXPECT_EQ(&first, &again);
  EXPECT_NE(&first, &other);
}

TEST(MetricsRegistryDeathTest, NamesThatBreakTheConventionEndTheProcess) {
  MetricsRegistry registry;
  EXPECT_DEATH(registry.AddCounter("temper_test_groups", "No total."), "_total");
  EXPECT_DEATH(registry.AddGauge("learner_step", "No prefix."), "temper_");
  EXPECT_DEATH(registry.AddHistogram("temper_test_Wait", "Capital."), "temper_");
}

TEST(BucketsTest, Ascend) {
  EXPECT_THAT(CountBuckets(8), ElementsAre(0, 1, 2, 4, 8));
  EXPECT_THAT(CountBuckets(5), ElementsAre(0, 1, 2, 4, 5));
  const std::vector<double> seconds = SecondsBuckets();
  for (size_t i = 1; i < seconds.size(); ++i) EXPECT_LT(seconds[i - 1], seconds[i]);
}

}  // namespace
}  // namespace temper::metrics
