#pragma once

// `trainer.hw_error_injection` of a resolved configuration as the numerics' own plan.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "numerics/injection_policy.h"
#include "numerics/row_selection.h"
#include "temper/v1/config.pb.h"

namespace temper::config {

// The block as a spec. InvalidArgument for a type or an injection point that has no known name.
absl::StatusOr<numerics::InjectionSpec> InjectionSpecFromConfig(const v1::RunConfig& config);

// The policy on a model of this shape. InvalidArgument as numerics::InjectionPolicy::Create.
absl::StatusOr<numerics::InjectionPolicy> InjectionFromConfig(const v1::RunConfig& config,
                                                              const numerics::ModelShape& shape);

// The evaluation under the error a run is trained with: its injection, at the strength of
// noisy_ops where that is on.
struct InjectedEvaluation {
  double error_scale = 0.0;
  bool draws = false;
  uint32_t noise_seeds = 1;  // 1 where nothing is drawn
};
// nullopt where the block is off, of strength 0 (a null arm), or its names are none.
std::optional<InjectedEvaluation> InjectedEvaluationOf(const v1::RunConfig& config);

// "mxfp4 weight", for tables; empty where the block is off or its names are none.
std::string InjectionName(const v1::RunConfig& config);

}  // namespace temper::config
