#pragma once

// Proof that configured noise acted, and that nothing else did: counts per row of the noise table,
// taken inside the operators.

#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "numerics/error_stats.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::numerics {

// A row of the table. layer: kNoLayer for operators outside the layers.
struct NoiseRowId {
  Phase phase = Phase::kRollout;
  Direction direction = Direction::kForward;
  int layer = kNoLayer;
  Operator op = Operator::kQ;
  friend auto operator<=>(const NoiseRowId&, const NoiseRowId&) = default;
};

// "rollout forward layers.3 q".
std::string NoiseRowName(const NoiseRowId& row);

struct NoiseRow {
  uint64_t operator_calls = 0;  // runs of the operator, with or without error
  ErrorStats stats;             // what its errors did
  friend bool operator==(const NoiseRow&, const NoiseRow&) = default;
};

// Thread-compatible: one per engine, merged afterwards. Merging is exact in any order.
class NoiseCounters {
 public:
  // The operator of `row` ran; stats: what its error did, empty if it had none.
  void Count(const NoiseRowId& row, const ErrorStats& stats);
  // Adds counts that come from elsewhere.
  void Add(const NoiseRowId& row, const NoiseRow& counts);
  void Merge(const NoiseCounters& other);
  void Clear() { rows_.clear(); }

  const std::map<NoiseRowId, NoiseRow>& rows() const { return rows_; }
  // Sum over layers and operators. Over all directions and phases but evaluation: Total().
  ErrorStats Total(Phase phase, Direction direction) const;
  // Rollout forward and train forward together: what "achieved error scale" means in a report.
  ErrorStats TotalForward() const;

  friend bool operator==(const NoiseCounters&, const NoiseCounters&) = default;

 private:
  std::map<NoiseRowId, NoiseRow> rows_;
};

// OK if what was counted is what the policy says. FailedPrecondition, naming the first wrong row
// and the number of wrong rows, where
//   - a row is configured and its operator ran, but no element was offered to an error, or
//   - a forward row is configured and other operators ran in its phase, but its own never did, or
//   - a row is configured and offered non-zero values, but none of them changed, or
//   - a row is not configured and elements were changed.
absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters);

}  // namespace temper::numerics
