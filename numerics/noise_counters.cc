#include "numerics/noise_counters.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace temper::numerics {
namespace {

// Elements that should have changed before a row in which none did is wrong. Of a sum of rare
// independent events with this mean, none happens with probability e^-1000; the room is for values
// that no error can change (zero gradients) and dead zones that are emptier than a uniform one's.
constexpr double kExpectedChanges = 1000.0;

// True where the error leaves most elements alone, and so may have left all of these. Frozen spikes
// strike the same few features, or none, however often an operator runs.
bool MayChangeNothing(const OperatorError& error, NoiseKey key, uint64_t elements) {
  const double share = error.type == ErrorType::kSpike      ? error.spike_probability
                       : error.type == ErrorType::kDeadzone ? error.strength
                                                            : 1.0;
  const bool one_draw = error.type == ErrorType::kSpike && key == NoiseKey::kFrozen;
  return share < 1.0 && (one_draw || share * static_cast<double>(elements) < kExpectedChanges);
}

// Why a counted row is wrong; empty if it is not.
std::string WhatIsWrong(const OperatorError& error, NoiseKey key, const NoiseRow& row) {
  const double scale = error.strength;
  if (error.acts()) {
    if (row.operator_calls > 0 && row.stats.elements == 0) {
      return absl::StrFormat("configured with scale %g, but none of %d calls was perturbed", scale,
                             row.operator_calls);
    }
    if (row.stats.changed == 0 && row.stats.sum_sq_value.value() > 0.0 &&
        !MayChangeNothing(error, key, row.stats.elements)) {
      return absl::StrFormat("configured with scale %g, but none of %d elements changed", scale,
                             row.stats.elements);
    }
  } else if (row.stats.changed > 0) {
    return absl::StrFormat("not configured, but %d elements changed", row.stats.changed);
  }
  return "";
}

// The first wrong row and how many there are.
class Findings {
 public:
  void Note(const NoiseRowId& id, std::string_view why) {
    if (why.empty()) return;
    if (wrong_++ == 0) first_ = absl::StrFormat("%s: %s", NoiseRowName(id), why);
  }

  absl::Status status() const {
    if (wrong_ == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrFormat("noise row %s (%d wrong row%s)", first_, wrong_, wrong_ == 1 ? "" : "s"));
  }

 private:
  std::string first_;
  int wrong_ = 0;
};

bool IsAqn(const NoiseRowId& id) { return id.role == TensorRole::kWeightOperand; }

std::string NeverRan(double scale) {
  return absl::StrFormat("configured with scale %g, but the operator never ran", scale);
}

// Looks for the configured rows of one phase and direction that were not counted.
void FindMissing(const NoisePolicy& policy, const NoiseCounters& counters, Phase phase,
                 Direction direction, Findings* findings) {
  const bool backward = direction == Direction::kBackward;
  for (int o = 0; o <= static_cast<int>(Operator::kRmsNorm); ++o) {
    const auto op = static_cast<Operator>(o);
    for (int layer = kNoLayer; layer < policy.num_layers(); ++layer) {
      const double scale = policy.Scale(phase, direction, op, layer);
      if (!(scale > 0.0)) continue;
      for (const TensorRole role :
           {TensorRole::kOutput, TensorRole::kGradInput, TensorRole::kGradWeight}) {
        if (backward == (role == TensorRole::kOutput)) continue;
        const NoiseRowId id = {phase, direction, layer, op, role};
        const auto it = counters.rows().find(id);
        const bool counted = it != counters.rows().end() && it->second.operator_calls > 0;
        if (!counted) findings->Note(id, NeverRan(scale));
      }
    }
  }
}

// The largest scale of the norms of a layer among `versions`.
double LargestAqnScale(const AqnPlan& plan, int layer, int num_layers,
                       std::span<const uint64_t> versions) {
  double largest = 0.0;
  for (const uint64_t version : versions) {
    const auto t = static_cast<int64_t>(version);
    largest = std::max(largest, Sigma(plan, t) * LayerMultiplier(plan, layer, num_layers, t));
  }
  return largest;
}

}  // namespace

std::string NoiseRowName(const NoiseRowId& row) {
  const std::string layer = row.layer < 0 ? "" : absl::StrCat("layers.", row.layer, " ");
  std::string name = absl::StrFormat("%s %s %s%s", PhaseName(row.phase),
                                     DirectionName(row.direction), layer, OperatorName(row.op));
  if (row.role != TensorRole::kOutput)
    absl::StrAppendFormat(&name, " %s", TensorRoleName(row.role));
  return name;
}

TensorRole RoleInPass(Direction direction, Operator op) {
  if (direction == Direction::kBackward) return TensorRole::kGradInput;
  return op == Operator::kRmsNorm ? TensorRole::kWeightOperand : TensorRole::kOutput;
}

void NoiseCounters::Count(const NoiseRowId& row, const ErrorStats& stats) {
  NoiseRow& counted = rows_[row];
  ++counted.operator_calls;
  counted.stats.Merge(stats);
}

void NoiseCounters::Add(const NoiseRowId& row, const NoiseRow& counts) {
  NoiseRow& counted = rows_[row];
  counted.operator_calls += counts.operator_calls;
  counted.stats.Merge(counts.stats);
}

void NoiseCounters::Merge(const NoiseCounters& other) {
  for (const auto& [id, row] : other.rows_) Add(id, row);
}

ErrorStats NoiseCounters::Total(Phase phase, Direction direction) const {
  ErrorStats total;
  for (const auto& [id, row] : rows_) {
    if (id.phase == phase && id.direction == direction && !IsAqn(id)) total.Merge(row.stats);
  }
  return total;
}

ErrorStats NoiseCounters::Total(Phase phase, Direction direction, TensorRole role) const {
  ErrorStats total;
  for (const auto& [id, row] : rows_) {
    if (id.phase == phase && id.direction == direction && id.role == role) total.Merge(row.stats);
  }
  return total;
}

NoiseRow NoiseCounters::Aqn() const {
  NoiseRow total;
  for (const auto& [id, row] : rows_) {
    if (id.phase != Phase::kRollout || !IsAqn(id)) continue;
    total.operator_calls += row.operator_calls;
    total.stats.Merge(row.stats);
  }
  return total;
}

ErrorStats NoiseCounters::TotalForward() const {
  ErrorStats total = Total(Phase::kRollout, Direction::kForward);
  total.Merge(Total(Phase::kTrain, Direction::kForward));
  return total;
}

absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters) {
  Findings findings;
  std::array<std::array<bool, 2>, kPhaseCount> ran = {};
  for (const auto& [id, row] : counters.rows()) {
    if (IsAqn(id)) continue;
    if (row.operator_calls > 0) {
      ran[static_cast<size_t>(id.phase)][static_cast<size_t>(id.direction)] = true;
    }
    findings.Note(id, WhatIsWrong(policy.Error(id.phase, id.direction, id.op, id.layer),
                                  policy.noise_key(), row));
  }
  for (int p = 0; p < kPhaseCount; ++p) {
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      if (!ran[static_cast<size_t>(p)][static_cast<size_t>(direction)]) continue;
      FindMissing(policy, counters, static_cast<Phase>(p), direction, &findings);
    }
  }
  return findings.status();
}

absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters,
                       std::span<const MadePass> made) {
  for (const MadePass& pass : made) {
    if (!policy.Any(pass.phase, pass.direction)) continue;
    const bool counted =
        std::any_of(counters.rows().begin(), counters.rows().end(), [&](const auto& counted_row) {
          const auto& [id, row] = counted_row;
          return id.phase == pass.phase && id.direction == pass.direction && !IsAqn(id) &&
                 row.operator_calls > 0;
        });
    if (!counted) {
      return absl::FailedPreconditionError(
          absl::StrFormat("error is configured in %s %s, but no operator was counted",
                          PhaseName(pass.phase), DirectionName(pass.direction)));
    }
  }
  return CheckSeen(policy, counters);
}

absl::Status CheckAqnSeen(const AqnPlan& plan, int num_layers, std::span<const uint64_t> versions,
                          const NoiseCounters& counters) {
  if (versions.empty()) return absl::OkStatus();
  Findings findings;
  for (int layer = kNoLayer; layer < num_layers; ++layer) {
    const NoiseRowId id = {Phase::kRollout, Direction::kForward, layer, Operator::kRmsNorm,
                           TensorRole::kWeightOperand};
    const double scale = LargestAqnScale(plan, layer, num_layers, versions);
    const auto it = counters.rows().find(id);
    if (it != counters.rows().end()) {
      findings.Note(
          id, WhatIsWrong({.strength = static_cast<float>(scale)}, NoiseKey::kFresh, it->second));
    } else if (scale > 0.0) {
      findings.Note(id, NeverRan(scale));
    }
  }
  return findings.status();
}

}  // namespace temper::numerics
