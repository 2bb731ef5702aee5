#pragma once

// Proof that configured noise acted, and that nothing else did: counts per row of the noise table,
// taken inside the operators.

#include <compare>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "numerics/aqn.h"
#include "numerics/error_stats.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::numerics {

// A row of the table. layer: kNoLayer for operators outside the layers. role: whose values were
// perturbed. An operator's result (kOutput) and its two gradients (kGradInput, kGradWeight) err by
// `noisy_ops`; a linear's operands (kInputOperand, kWeightOperand) and its result (kInjectedOutput)
// by `hw_error_injection`, and such a row is counted only where that acts; a weight (kInputNorm and
// its siblings, kWeightNoise) is perturbed by AQN.
struct NoiseRowId {
  Phase phase = Phase::kRollout;
  Direction direction = Direction::kForward;
  int layer = kNoLayer;
  Operator op = Operator::kQ;
  TensorRole role = TensorRole::kOutput;
  friend auto operator<=>(const NoiseRowId&, const NoiseRowId&) = default;
};

// "rollout forward layers.3 q", "train backward layers.3 q grad_weight".
std::string NoiseRowName(const NoiseRowId& row);

// True for a row of `hw_error_injection`.
bool IsInjection(const NoiseRowId& row);

// The role of a row that is named by direction and operator alone: on the wire, and in the engines'
// dense counts of one pass; a norm's is kWeightNoise. kGradWeight never is: its error acts outside
// the passes. Rows of hw_error_injection name theirs.
TensorRole RoleInPass(Direction direction, Operator op);

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
  // Sums over layers and operators of what the errors of noisy_ops did: without AQN and injections.
  ErrorStats Total(Phase phase, Direction direction) const;
  // The same of one role; of an injection's too.
  ErrorStats Total(Phase phase, Direction direction, TensorRole role) const;
  // What AQN did to weights in one phase: one call per norm (or linear under AQN) and token,
  // operator_calls with the norms that ran clean.
  NoiseRow Aqn(Phase phase = Phase::kRollout) const;
  // Rollout forward and train forward together: what "achieved error scale" means in a report.
  ErrorStats TotalForward() const;

  friend bool operator==(const NoiseCounters&, const NoiseCounters&) = default;

 private:
  std::map<NoiseRowId, NoiseRow> rows_;
};

// OK if what was counted is what the policy says. FailedPrecondition, naming the first wrong row
// and the number of wrong rows, where
//   - a row is configured and its operator ran, but no element was offered to an error, or
//   - a row is configured and others ran in its phase and direction, but its own never did (of the
//     backward direction both gradients of each operator; g_x alone where its weight is frozen), or
//   - a row is configured and offered non-zero values, but none of them changed (of spike and
//     deadzone, which leave most alone: although a thousand fresh draws should have), or
//   - a row is not configured and elements were changed.
// Rows of noisy_ops and of hw_error_injection (policy.injection()) are each held to their own
// block. A weight that is perturbed counts its elements again for every token it is multiplied
// with. Rows of AQN are not its matter.
absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters);

// A pass that was made, whatever it counted.
struct MadePass {
  Phase phase = Phase::kRollout;
  Direction direction = Direction::kForward;
};

// CheckSeen, and FailedPrecondition also for one of `made` that the policy perturbs and in which no
// operator was counted at all: counters that are empty say nothing of the noise.
absl::Status CheckSeen(const NoisePolicy& policy, const NoiseCounters& counters,
                       std::span<const MadePass> made);

// The same of AQN in the forward passes of one phase: rollouts, or the learner's where its norms
// have it too (plan.in_learner; in other phases than the rollout nothing is configured otherwise).
// versions: those that sampled any token of what was counted; with none there is nothing to see.
// FailedPrecondition, naming the row, where a norm or linear has sigma * multiplier > 0 in one of
// the versions, but was not counted as perturbed or none of its numbers changed, and where it has 0
// in all of them, but numbers were changed.
absl::Status CheckAqnSeen(const AqnPlan& plan, int num_layers, std::span<const uint64_t> versions,
                          const NoiseCounters& counters, Phase phase = Phase::kRollout);

}  // namespace temper::numerics
