#include "numerics/noise_counters.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

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
bool MayChangeNothing(const OperatorError& error, NoiseKey key, double elements) {
  const double share = error.type == ErrorType::kSpike      ? error.spike_probability
                       : error.type == ErrorType::kDeadzone ? error.strength
                                                            : 1.0;
  const bool one_draw = error.type == ErrorType::kSpike && key == NoiseKey::kFrozen;
  return share < 1.0 && (one_draw || share * elements < kExpectedChanges);
}

// Why a counted row is wrong; empty if it is not. error: what is configured, of which `what` names
// the size; no error: nothing is. draws: how many elements its calls drew for, each by itself.
std::string WhatIsWrong(const OperatorError& error, std::string_view what, NoiseKey key,
                        double draws, const NoiseRow& row) {
  if (what.empty()) {
    if (row.stats.changed == 0) return "";
    return absl::StrFormat("not configured, but %d elements changed", row.stats.changed);
  }
  if (row.operator_calls > 0 && row.stats.elements == 0) {
    return absl::StrFormat("configured with %s, but none of %d calls was perturbed", what,
                           row.operator_calls);
  }
  if (row.stats.changed == 0 && row.stats.sum_sq_value.value() > 0.0 &&
      !MayChangeNothing(error, key, draws)) {
    return absl::StrFormat("configured with %s, but none of %d elements changed", what,
                           row.stats.elements);
  }
  return "";
}

std::string ScaleText(double scale) {
  return scale > 0.0 ? absl::StrFormat("scale %g", scale) : std::string();
}

std::string WhatIsWrong(const OperatorError& error, NoiseKey key, const NoiseRow& row) {
  return WhatIsWrong(error, ScaleText(error.acts() ? static_cast<double>(error.strength) : 0.0),
                     key, static_cast<double>(row.stats.elements), row);
}

// A weight is drawn for once, however many tokens it is multiplied with.
std::string WhatIsWrong(const TensorError& error, const NoiseRowId& id, const NoiseRow& row) {
  const auto elements = static_cast<double>(row.stats.elements);
  const bool weight = id.role == TensorRole::kWeightOperand && row.stats.calls > 0;
  return WhatIsWrong(error.error(), error.acts() ? error.Describe() : "", NoiseKey::kFresh,
                     weight ? elements / static_cast<double>(row.stats.calls) : elements, row);
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

bool IsAqn(const NoiseRowId& id) { return id.role == TensorRole::kWeightNoise; }
bool IsNoisyOp(const NoiseRowId& id) { return !IsAqn(id) && !IsInjection(id); }

std::string NeverRan(std::string_view what) {
  return absl::StrFormat("configured with %s, but the operator never ran", what);
}

bool WasCounted(const NoiseCounters& counters, const NoiseRowId& id) {
  const auto it = counters.rows().find(id);
  return it != counters.rows().end() && it->second.operator_calls > 0;
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
        if (role == TensorRole::kGradWeight && !policy.HasWeightGradient(op)) continue;
        const NoiseRowId id = {phase, direction, layer, op, role};
        if (!WasCounted(counters, id)) findings->Note(id, NeverRan(ScaleText(scale)));
      }
    }
  }
}

// The same of injections.
void FindMissing(const InjectionPolicy& policy, int num_layers, const NoiseCounters& counters,
                 Phase phase, Direction direction, Findings* findings) {
  for (int o = 0; IsLinear(static_cast<Operator>(o)); ++o) {
    for (int layer = kNoLayer; layer < num_layers; ++layer) {
      for (const TensorRole role :
           {TensorRole::kInputOperand, TensorRole::kWeightOperand, TensorRole::kInjectedOutput}) {
        const NoiseRowId id = {phase, direction, layer, static_cast<Operator>(o), role};
        const TensorError& error = policy.Error(phase, direction, role, id.op, layer);
        if (!error.acts() || WasCounted(counters, id)) continue;
        findings->Note(id, NeverRan(error.Describe()));
      }
    }
  }
}

// The largest scale of a weight among `versions`.
double LargestAqnScale(const AqnPlan& plan, const AqnTarget& target, int num_layers,
                       std::span<const uint64_t> versions) {
  double largest = 0.0;
  for (const uint64_t version : versions) {
    const auto t = static_cast<int64_t>(version);
    largest = std::max(largest, Sigma(plan, t) * AqnMultiplier(plan, target, num_layers, t));
  }
  return largest;
}

// Every weight that AQN may act on, whatever norms the model has.
std::vector<AqnTarget> AqnCandidates(int num_layers) {
  const ModelShape shape = {.num_layers = num_layers, .qk_norm = true};
  std::vector<AqnTarget> candidates = AqnNorms(shape);
  for (const AqnTarget& linear : AqnLinears(shape)) candidates.push_back(linear);
  return candidates;
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

bool IsInjection(const NoiseRowId& row) {
  return row.role == TensorRole::kInputOperand || row.role == TensorRole::kInjectedOutput ||
         row.role == TensorRole::kWeightOperand;
}

TensorRole RoleInPass(Direction direction, Operator op) {
  if (direction == Direction::kBackward) return TensorRole::kGradInput;
  return IsNorm(op) && op != Operator::kRmsNorm ? TensorRole::kWeightNoise : TensorRole::kOutput;
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
    if (id.phase == phase && id.direction == direction && IsNoisyOp(id)) total.Merge(row.stats);
  }
  return total;
}

ErrorStats NoiseCounters::Total(Phase phase, Direction direction, TensorRole role) const {
  ErrorStats total;
  for (const auto& [id, row] : rows_) {
    if (id.phase == phase && id.direction == direction && id.role == role && !IsAqn(id)) {
      total.Merge(row.stats);
    }
  }
  return total;
}

NoiseRow NoiseCounters::Aqn(Phase phase) const {
  NoiseRow total;
  for (const auto& [id, row] : rows_) {
    if (id.phase != phase || !IsAqn(id)) continue;
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
    if (IsInjection(id)) {
      const TensorError& error =
          policy.injection().Error(id.phase, id.direction, id.role, id.op, id.layer);
      findings.Note(id, WhatIsWrong(error, id, row));
      continue;
    }
    findings.Note(id, WhatIsWrong(policy.Error(id.phase, id.direction, id.op, id.layer),
                                  policy.noise_key(), row));
  }
  for (int p = 0; p < kPhaseCount; ++p) {
    for (const Direction direction : {Direction::kForward, Direction::kBackward}) {
      if (!ran[static_cast<size_t>(p)][static_cast<size_t>(direction)]) continue;
      const auto phase = static_cast<Phase>(p);
      FindMissing(policy, counters, phase, direction, &findings);
      FindMissing(policy.injection(), policy.num_layers(), counters, phase, direction, &findings);
    }
  }
  return findings.status();
}

absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters,
                       std::span<const MadePass> made) {
  for (const MadePass& pass : made) {
    if (!policy.Any(pass.phase, pass.direction) &&
        !policy.injection().Any(pass.phase, pass.direction)) {
      continue;
    }
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
                          const NoiseCounters& counters, Phase phase) {
  if (versions.empty()) return absl::OkStatus();
  Findings findings;
  const bool acts = phase == Phase::kRollout || plan.in_learner;
  for (const AqnTarget& target : AqnCandidates(num_layers)) {
    const NoiseRowId id = {phase, Direction::kForward, target.layer, target.op,
                           TensorRole::kWeightNoise};
    const double scale = acts ? LargestAqnScale(plan, target, num_layers, versions) : 0.0;
    const auto it = counters.rows().find(id);
    if (it != counters.rows().end()) {
      findings.Note(
          id, WhatIsWrong({.strength = static_cast<float>(scale)}, NoiseKey::kFresh, it->second));
    } else if (scale > 0.0) {
      findings.Note(id, NeverRan(ScaleText(scale)));
    }
  }
  return findings.status();
}

}  // namespace temper::numerics
