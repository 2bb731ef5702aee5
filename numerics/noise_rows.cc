#include "numerics/noise_rows.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace temper::numerics {

std::map<std::string, std::string> NoiseRowLabels(const NoiseRowId& row) {
  return {{"phase", std::string(PhaseName(row.phase))},
          {"direction", std::string(DirectionName(row.direction))},
          {"layer", row.layer < 0 ? "none" : absl::StrCat(row.layer)},
          {"operator", std::string(OperatorName(row.op))},
          {"tensor", std::string(TensorRoleName(row.role))}};
}

std::optional<double> AchievedShare(const NoisePolicy& policy, const NoiseRowId& id,
                                    const NoiseRow& row) {
  // What a format or an injected error makes of its operands follows no law of noisy_ops' scale.
  if (id.role == TensorRole::kWeightNoise || IsInjection(id)) return std::nullopt;
  const OperatorError error = policy.Error(id.phase, id.direction, id.op, id.layer);
  const bool lawful = error.type == ErrorType::kRelativeGaussian && error.acts() &&
                      policy.noise_key() == NoiseKey::kFresh;
  if (!lawful || !(row.stats.sum_sq_value.value() > 0.0)) return std::nullopt;
  return row.stats.AchievedScale() / static_cast<double>(error.strength);
}

absl::Status CheckAchievedScale(const NoisePolicy& policy, const NoiseCounters& counters) {
  std::string first;
  int wrong = 0;
  for (const auto& [id, row] : counters.rows()) {
    const std::optional<double> share = AchievedShare(policy, id, row);
    if (!share || (*share >= kLeastAchievedShare && *share <= kMostAchievedShare)) continue;
    if (wrong++ == 0) {
      first = absl::StrFormat("%s: achieved scale %g, configured %g", NoiseRowName(id),
                              row.stats.AchievedScale(),
                              policy.Scale(id.phase, id.direction, id.op, id.layer));
    }
  }
  if (wrong == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("noise row %s (%d wrong row%s)", first, wrong, wrong == 1 ? "" : "s"));
}

}  // namespace temper::numerics
