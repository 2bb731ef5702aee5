#pragma once

// A version's weights as `hw_error_injection` has them multiplied in the decode engine: packed
// matrices beside the clean ones. Operators that share a stacked matrix (q, k, v; gate, up) are
// apart here, because each reads an operand of its own. Immutable once made.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "model/operand_error.h"
#include "numerics/gemm.h"
#include "numerics/injection_policy.h"
#include "numerics/site.h"

namespace temper::model {

struct DecodeWeights;

struct InjectedLinear {
  numerics::PackedMatrix matrix;    // W^, or W where the weight is clean
  WeightPerturbation perturbation;  // of W^
};

struct InjectedWeights {
  uint64_t id = 0;                                    // InjectionPolicy::WeightsId
  std::vector<std::array<InjectedLinear, 7>> layers;  // by Operator: q k v o gate up down
  InjectedLinear lm_head;

  // Null where no operand of the operators that share its stacked matrix errs: the clean one is
  // multiplied then.
  const InjectedLinear* Find(numerics::Operator op, int layer) const;
};

// Null if no operand errs in the phase of `draw` (kRollout or kEval). Reads `weights` during the
// call only. Errors: ResourceExhausted as TensorError::PerturbWeight.
absl::StatusOr<std::shared_ptr<const InjectedWeights>> InjectWeights(
    const DecodeWeights& weights, const numerics::InjectionPolicy& policy,
    const numerics::InjectionDraw& draw);

}  // namespace temper::model
