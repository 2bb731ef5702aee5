#include "numerics/noise_counters.h"

#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace temper::numerics {
namespace {

// Why a counted row is wrong; empty if it is not.
std::string WhatIsWrong(double scale, const NoiseRow& row) {
  if (scale > 0.0) {
    if (row.operator_calls > 0 && row.stats.elements == 0) {
      return absl::StrFormat("configured with scale %g, but none of %d calls was perturbed", scale,
                             row.operator_calls);
    }
    if (row.stats.changed == 0 && row.stats.sum_sq_value.value() > 0.0) {
      return absl::StrFormat("configured with scale %g, but none of %d elements changed", scale,
                             row.stats.elements);
    }
  } else if (row.stats.changed > 0) {
    return absl::StrFormat("not configured, but %d elements changed", row.stats.changed);
  }
  return "";
}

}  // namespace

std::string NoiseRowName(const NoiseRowId& row) {
  const std::string layer = row.layer < 0 ? "" : absl::StrCat("layers.", row.layer, " ");
  return absl::StrFormat("%s %s %s%s", PhaseName(row.phase), DirectionName(row.direction), layer,
                         OperatorName(row.op));
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
    if (id.phase == phase && id.direction == direction) total.Merge(row.stats);
  }
  return total;
}

ErrorStats NoiseCounters::TotalForward() const {
  ErrorStats total = Total(Phase::kRollout, Direction::kForward);
  total.Merge(Total(Phase::kTrain, Direction::kForward));
  return total;
}

absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters) {
  std::string first;
  int wrong = 0;
  auto note = [&](const NoiseRowId& id, std::string why) {
    if (why.empty()) return;
    if (wrong++ == 0) first = absl::StrCat(NoiseRowName(id), ": ", why);
  };
  std::array<bool, kPhaseCount> ran = {};
  for (const auto& [id, row] : counters.rows()) {
    if (id.direction == Direction::kForward && row.operator_calls > 0) {
      ran[static_cast<size_t>(id.phase)] = true;
    }
    note(id, WhatIsWrong(policy.Scale(id.phase, id.direction, id.op, id.layer), row));
  }
  for (int p = 0; p < kPhaseCount; ++p) {
    if (!ran[static_cast<size_t>(p)]) continue;
    for (int o = 0; o <= static_cast<int>(Operator::kRmsNorm); ++o) {
      for (int layer = kNoLayer; layer < policy.num_layers(); ++layer) {
        const NoiseRowId id = {static_cast<Phase>(p), Direction::kForward, layer,
                               static_cast<Operator>(o)};
        const auto it = counters.rows().find(id);
        const bool counted = it != counters.rows().end() && it->second.operator_calls > 0;
        const double scale = policy.Scale(id.phase, id.direction, id.op, id.layer);
        if (scale > 0.0 && !counted) {
          note(id, absl::StrFormat("configured with scale %g, but the operator never ran", scale));
        }
      }
    }
  }
  if (wrong == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("noise row %s (%d wrong row%s)", first, wrong, wrong == 1 ? "" : "s"));
}

}  // namespace temper::numerics
