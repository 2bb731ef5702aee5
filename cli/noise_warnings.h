#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/tensor_data.h"
#include "numerics/aqn_draw.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// A line for every weight whose largest noise over the run, sigma times its layer's multiplier, is
// above a quarter of its RMS: there AQN is no longer a small perturbation (docs/numerics.md,
// "AQN"). Empty where AQN is off. Errors: of numerics::CheckLinearShare, for noise on a linear.
// weights: by Hugging Face name; those that are missing are passed over.
absl::StatusOr<std::vector<std::string>> AqnWarnings(const numerics::AqnPlan& plan,
                                                     const numerics::ModelShape& shape,
                                                     const model::TensorMap& weights);

// The same for a configuration; of its model the weights that AQN acts on alone are read. Errors:
// those, and of ModelReader and AqnPlanFromConfig.
absl::StatusOr<std::vector<std::string>> AqnWarningsOf(const v1::RunConfig& config);

}  // namespace temper::cli
