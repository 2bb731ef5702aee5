#pragma once

// The rows of the noise table for people: labels of a series, and whether an error was as large as
// it was configured. All functions are pure and thread-safe.

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "numerics/noise_counters.h"
#include "numerics/noise_policy.h"

namespace temper::numerics {

// phase, direction, layer ("none" outside of the layers), operator, tensor.
std::map<std::string, std::string> NoiseRowLabels(const NoiseRowId& row);

// The achieved scale of a row over the configured one, where a law says that it is near 1:
// relative_gaussian with fresh keys. nullopt for other errors, rows that are not configured, and
// rows without a value to measure by.
std::optional<double> AchievedShare(const NoisePolicy& policy, const NoiseRowId& id,
                                    const NoiseRow& row);

// The bounds of AchievedShare. An error at half or at twice its strength is outside; that of honest
// draws over kJudgedGroups groups is well inside, also where massive activations leave few
// independent ones (docs/numerics.md, "Counting").
inline constexpr double kLeastAchievedShare = 0.7;
inline constexpr double kMostAchievedShare = 1.4;
inline constexpr uint64_t kJudgedGroups = 200;

// FailedPrecondition, naming the first row whose AchievedShare is outside the bounds, with both
// scales and the number of such rows. counters: of so many groups that the bounds hold.
absl::Status CheckAchievedScale(const NoisePolicy& policy, const NoiseCounters& counters);

}  // namespace temper::numerics
