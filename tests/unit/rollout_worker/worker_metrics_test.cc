#include "rollout_worker/worker_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper::rollout_worker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(WorkerMetricsTest, ShowsEveryRowOfNoiseAndWhatItDid) {
  metrics::MetricsRegistry registry;
  WorkerMetrics metrics(&registry);
  numerics::NoiseCounters counters;
  numerics::ErrorStats stats = {.calls = 1, .elements = 64, .changed = 60};
  stats.sum_sq_error.Add(0.25);
  stats.sum_sq_value.Add(16.0);
  counters.Count({.layer = 3, .op = numerics::Operator::kDown}, stats);
  counters.Count({.op = numerics::Operator::kLmHead}, {});
  metrics.CountNoise(counters);
  metrics.CountNoise(counters);
  const std::string text = registry.Serialize();
  const std::string row =
      R"({direction="forward",layer="3",operator="down",phase="rollout",tensor="output"} )";
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_calls_total" + row + "2"));
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_elements_total" + row + "128"));
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_changed_total" + row + "120"));
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_error_square_total" + row + "0.5"));
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_value_square_total" + row + "32"));
  const std::string clean =
      R"({direction="forward",layer="none",operator="lm_head",phase="rollout",tensor="output"} )";
  EXPECT_THAT(text, HasSubstr("temper_rollout_noise_calls_total" + clean + "2"));
  EXPECT_THAT(text, Not(HasSubstr("temper_rollout_noise_elements_total" + clean)));
}

}  // namespace
}  // namespace temper::rollout_worker
