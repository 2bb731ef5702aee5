#include "numerics/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "services/base/check.h"
#include "services/base/random_key.h"

namespace temper::numerics {

Interval WilsonInterval(int64_t successes, int64_t trials, double z) {
  if (trials <= 0) return {0.0, 1.0};
  const double n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n;
  const double shrink = 1.0 + z * z / n;
  const double center = (p + z * z / (2.0 * n)) / shrink;
  const double half = z / shrink * std::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
  // At 0 and n the bound is exact; rounding must not move it past.
  return {successes <= 0 ? 0.0 : std::max(0.0, center - half),
          successes >= trials ? 1.0 : std::min(1.0, center + half)};
}

McNemarResult McNemar(int64_t only_first, int64_t only_second) {
  McNemarResult result = {.only_first = only_first, .only_second = only_second};
  const int64_t n = only_first + only_second;
  const int64_t smaller = std::min(only_first, only_second);
  if (n == 0) return result;
  double tail = 0.0;
  for (int64_t k = 0; k <= smaller; ++k) {
    const double a = static_cast<double>(n), b = static_cast<double>(k);
    tail += std::exp(std::lgamma(a + 1) - std::lgamma(b + 1) - std::lgamma(a - b + 1) -
                     a * std::log(2.0));
  }
  result.p_value = std::min(1.0, 2.0 * tail);
  return result;
}

absl::StatusOr<McNemarResult> McNemar(std::span<const uint8_t> before,
                                      std::span<const uint8_t> after) {
  if (before.size() != after.size()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "outcomes of %d questions before and %d after", before.size(), after.size()));
  }
  int64_t only_first = 0, only_second = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] != 0 && after[i] == 0) ++only_first;
    if (before[i] == 0 && after[i] != 0) ++only_second;
  }
  return McNemar(only_first, only_second);
}

namespace {

// Mean of one resampled set of differences.
double Replicate(std::span<const double> differences, uint64_t key) {
  const auto n = static_cast<unsigned __int128>(differences.size());
  double sum = 0.0;
  for (size_t i = 0; i < differences.size(); i += 2) {
    const std::array<uint32_t, 4> w = base::Philox({static_cast<uint32_t>(i / 2), 0, 0, 0}, key);
    const uint64_t first = (uint64_t{w[0]} << 32) | w[1];
    sum += differences[static_cast<size_t>((first * n) >> 64)];
    if (i + 1 < differences.size()) {
      const uint64_t second = (uint64_t{w[2]} << 32) | w[3];
      sum += differences[static_cast<size_t>((second * n) >> 64)];
    }
  }
  return sum / static_cast<double>(differences.size());
}

double SortedQuantile(std::span<const double> sorted, double q) {
  if (sorted.empty()) return 0.0;
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double fraction = place - static_cast<double>(below);
  return sorted[below] + fraction * (sorted[below + 1] - sorted[below]);
}

}  // namespace

absl::StatusOr<BootstrapResult> PairedBootstrap(std::span<const double> before,
                                                std::span<const double> after, uint64_t seed,
                                                int64_t replicates) {
  if (before.size() != after.size() || before.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("means of %d questions before and %d after", before.size(), after.size()));
  }
  if (replicates < 100) {
    return absl::InvalidArgumentError(absl::StrFormat("%d replicates, fewer than 100", replicates));
  }
  std::vector<double> differences(before.size());
  for (size_t i = 0; i < before.size(); ++i) differences[i] = after[i] - before[i];
  const double difference = Mean(differences);
  if (!std::isfinite(difference)) {
    return absl::InvalidArgumentError("an outcome is not a finite number");
  }
  std::vector<double> means(static_cast<size_t>(replicates));
  int64_t not_above = 0, not_below = 0;
  for (size_t b = 0; b < means.size(); ++b) {
    means[b] = Replicate(differences, base::RandomKey(seed, base::Purpose::kBootstrap, b));
    if (means[b] <= 0.0) ++not_above;
    if (means[b] >= 0.0) ++not_below;
  }
  std::sort(means.begin(), means.end());
  const double tail = static_cast<double>(1 + std::min(not_above, not_below));
  return BootstrapResult{.difference = difference,
                         .interval = {SortedQuantile(means, 0.025), SortedQuantile(means, 0.975)},
                         .p_value = std::min(1.0, 2.0 * tail / static_cast<double>(replicates + 1)),
                         .standard_error = StandardDeviation(means),
                         .questions = static_cast<int64_t>(before.size()),
                         .replicates = replicates};
}

void QuestionMeans(std::span<const uint8_t> outcomes, int64_t seeds, std::span<double> means) {
  TEMPER_CHECK(seeds > 0 && outcomes.size() == static_cast<size_t>(seeds) * means.size(),
               "one outcome per seed and question");
  for (size_t q = 0; q < means.size(); ++q) {
    int64_t right = 0;
    for (int64_t s = 0; s < seeds; ++s) {
      right += outcomes[static_cast<size_t>(s) * means.size() + q] != 0 ? 1 : 0;
    }
    means[q] = static_cast<double>(right) / static_cast<double>(seeds);
  }
}

double Mean(std::span<const double> values) {
  if (values.empty()) return 0.0;
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double StandardDeviation(std::span<const double> values) {
  if (values.size() < 2) return 0.0;
  const double mean = Mean(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double Quantile(std::span<const double> values, double q) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return SortedQuantile(sorted, std::clamp(q, 0.0, 1.0));
}

double Median(std::span<const double> values) { return Quantile(values, 0.5); }

}  // namespace temper::numerics
