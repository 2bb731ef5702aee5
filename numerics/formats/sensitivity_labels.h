#pragma once

// Which layers suffer most, by quantiles of a metric, and the AQN multipliers that follow.

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace temper::numerics {

enum class SensitivityLabel { kLow, kMedium, kHigh };

// "low", "medium", "high".
std::string_view SensitivityLabelName(SensitivityLabel label);

struct LabelRule {
  double low_quantile = 1.0 / 3;   // less severe than this quantile: low
  double high_quantile = 2.0 / 3;  // more severe than this one: high; else medium
  bool smaller_is_worse = false;   // of SQNR; of dead zone, relative error and KL the larger is
};

// A label per value. Quantiles interpolate between order statistics (numerics/statistics.h); what
// equals one is medium, so that equal values are all medium.
// Errors: InvalidArgument for a value that is not finite, or quantiles that are not
// 0 <= low <= high <= 1.
absl::StatusOr<std::vector<SensitivityLabel>> LabelByQuantiles(std::span<const double> values,
                                                               const LabelRule& rule = {});

// What the labels become in a layer_sigma_config. Defaults: the `variable` preset's three values.
struct LabelMultipliers {
  double high = 1.5;
  double medium = 1.2;
  double low = 1.0;
};
double Multiplier(SensitivityLabel label, const LabelMultipliers& multipliers = {});

}  // namespace temper::numerics
