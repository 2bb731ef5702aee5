#include "numerics/formats/sensitivity_labels.h"

#include <cmath>

#include "numerics/statistics.h"
#include "services/base/text.h"

namespace temper::numerics {

std::string_view SensitivityLabelName(SensitivityLabel label) {
  switch (label) {
    case SensitivityLabel::kLow:
      return "low";
    case SensitivityLabel::kMedium:
      return "medium";
    case SensitivityLabel::kHigh:
      return "high";
  }
  return "unknown";
}

absl::StatusOr<std::vector<SensitivityLabel>> LabelByQuantiles(std::span<const double> values,
                                                               const LabelRule& rule) {
  if (!(0.0 <= rule.low_quantile && rule.low_quantile <= rule.high_quantile &&
        rule.high_quantile <= 1.0)) {
    return absl::InvalidArgumentError(base::Cat("quantiles ", rule.low_quantile, " and ",
                                                rule.high_quantile,
                                                " are not 0 <= low <= high <= 1"));
  }
  std::vector<double> severity;
  for (const double value : values) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          base::Cat("value ", severity.size(), " to be labelled is ", value));
    }
    severity.push_back(rule.smaller_is_worse ? -value : value);
  }
  const double low = Quantile(severity, rule.low_quantile);
  const double high = Quantile(severity, rule.high_quantile);
  std::vector<SensitivityLabel> labels;
  for (const double value : severity) {
    labels.push_back(value > high  ? SensitivityLabel::kHigh
                     : value < low ? SensitivityLabel::kLow
                                   : SensitivityLabel::kMedium);
  }
  return labels;
}

double Multiplier(SensitivityLabel label, const LabelMultipliers& multipliers) {
  switch (label) {
    case SensitivityLabel::kLow:
      return multipliers.low;
    case SensitivityLabel::kMedium:
      return multipliers.medium;
    case SensitivityLabel::kHigh:
      return multipliers.high;
  }
  return multipliers.medium;
}

}  // namespace temper::numerics
