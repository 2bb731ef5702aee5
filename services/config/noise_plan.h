#pragma once

// Turns the noise blocks of a resolved configuration into the numerics' own plans, and names the
// whole with one number. Used by every process that perturbs or checks, so that they cannot differ.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "numerics/aqn.h"
#include "numerics/noise_policy.h"
#include "numerics/operator_error.h"
#include "temper/v1/config.pb.h"

namespace temper::config {

// The strength of the configured error: error_scale, deadzone_threshold or fault_magnitude, as
// numerics::StrengthName says of error_type (error_scale where the type has no known name).
double ErrorStrength(const v1::NoisyOpsConfig& noisy);

// The configured error with all its parameters. InvalidArgument for a type that has no known name.
absl::StatusOr<numerics::OperatorError> ErrorFromConfig(const v1::NoisyOpsConfig& noisy);

// Of their configured names; the default for a name that is none.
numerics::ApplyDuring ApplyDuringOf(const std::string& name);
numerics::LearnerNoise LearnerNoiseOf(const std::string& name);

// The policy of `trainer.noisy_ops` and, in it, `trainer.hw_error_injection`, with
// `trainer.learner_noise`, on a model of this shape.
// InvalidArgument: a combination that would do nothing (NoisePolicy::Create and
// InjectionPolicy::Create say which).
absl::StatusOr<numerics::NoisePolicy> NoisePolicyFromConfig(const v1::RunConfig& config,
                                                            const numerics::ModelShape& shape);

// The policy that evaluations at `error_scale` run under: the configured operators (or the default
// ones where training has no error) under the configured error type, of which error_scale is the
// strength, and its other parameters. 0: clean. injected: under hw_error_injection too, as it is
// configured. InvalidArgument also for a strength out of range, and for an injection that is off.
absl::StatusOr<numerics::NoisePolicy> EvaluationPolicyFromConfig(const v1::RunConfig& config,
                                                                 const numerics::ModelShape& shape,
                                                                 double error_scale,
                                                                 bool injected = false);

// The plan of `trainer.noise_injection`. shape: of the model, or num_layers < 0 to leave out the
// checks that need it, those of preset from_scan among them: its multipliers stand in
// layer_multipliers once the scan file was read (cli/scan_multipliers.h). InvalidArgument as
// numerics::ValidateAqn.
absl::StatusOr<numerics::AqnPlan> AqnPlanFromConfig(const v1::RunConfig& config,
                                                    const numerics::ModelShape& shape);

// Fingerprint of error policy and AQN: a submitted group carries it, the learner refuses another.
uint64_t NoiseId(const numerics::NoisePolicy& policy, const numerics::AqnPlan& plan);

}  // namespace temper::config
