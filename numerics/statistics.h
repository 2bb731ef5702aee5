#pragma once

// Intervals and tests for accuracies. Pure; random resampling is keyed. Sources and hand-worked
// values: docs/numerics.md, "Statistics".

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace temper::numerics {

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

// z for a two-sided 95 % interval.
inline constexpr double kZ95 = 1.959963984540054;

// Wilson score interval for a proportion; [0, 1] where trials is 0. successes <= trials.
Interval WilsonInterval(int64_t successes, int64_t trials, double z = kZ95);

// McNemar's exact test for two outcomes on the same questions.
struct McNemarResult {
  int64_t only_first = 0;   // right in the first, wrong in the second
  int64_t only_second = 0;  // the other way round
  double p_value = 1.0;     // two-sided exact binomial, min(1, 2 P(X <= min)); 1 if no discordance
};
McNemarResult McNemar(int64_t only_first, int64_t only_second);
// before, after: one 0 / 1 per question, in the same order. InvalidArgument if the lengths differ.
absl::StatusOr<McNemarResult> McNemar(std::span<const uint8_t> before,
                                      std::span<const uint8_t> after);

// Bootstrap over questions of the difference of means.
struct BootstrapResult {
  double difference = 0.0;  // mean(after) - mean(before)
  Interval interval;        // percentile interval, 95 %
  double p_value = 1.0;  // two-sided; (1 + smaller tail of replicates at or past 0) * 2 / (B + 1)
  double standard_error = 0;  // standard deviation of the replicates
  int64_t questions = 0;
  int64_t replicates = 0;
};
// before[i], after[i]: mean outcome of question i over its noise seeds, in [0, 1]. Replicate b
// draws its questions from RandomKey(seed, kBootstrap, b). InvalidArgument if the lengths differ or
// are 0, a value is not finite, or replicates < 100.
absl::StatusOr<BootstrapResult> PairedBootstrap(std::span<const double> before,
                                                std::span<const double> after, uint64_t seed,
                                                int64_t replicates = 10000);

// Mean over noise seeds of each question. outcomes: [seeds, questions] row-major; means:
// [questions].
void QuestionMeans(std::span<const uint8_t> outcomes, int64_t seeds, std::span<double> means);

// 0 for an empty span.
double Mean(std::span<const double> values);
// Standard deviation with n - 1; 0 for fewer than two values.
double StandardDeviation(std::span<const double> values);
// Mean of the two middle values for an even count; 0 for an empty span.
double Median(std::span<const double> values);
// Quantile by linear interpolation between order statistics, q in [0, 1]; 0 for an empty span.
double Quantile(std::span<const double> values, double q);

}  // namespace temper::numerics
