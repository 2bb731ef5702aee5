#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/tensor_data.h"
#include "numerics/aqn.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// A line for every norm whose largest noise over the run, sigma times its layer's multiplier, is
// above a quarter of the RMS of its weight: there AQN is no longer a small perturbation
// (docs/numerics.md, "AQN"). Empty where AQN is off.
// norms: by Hugging Face name; those that are missing are passed over.
std::vector<std::string> AqnWarnings(const numerics::AqnPlan& plan, int layers,
                                     const model::TensorMap& norms);

// The same for a configuration; of its model the norms alone are read. Errors: of ModelReader and
// AqnPlanFromConfig.
absl::StatusOr<std::vector<std::string>> AqnWarningsOf(const v1::RunConfig& config);

}  // namespace temper::cli
