#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/loader.h"
#include "numerics/aqn.h"
#include "temper/v1/config.pb.h"

namespace temper::cli {

// A line for every norm whose largest noise over the run, sigma times its layer's multiplier, is
// above a quarter of the RMS of its weight: there AQN is no longer a small perturbation
// (docs/numerics.md, "AQN"). Empty where AQN is off.
std::vector<std::string> AqnWarnings(const numerics::AqnPlan& plan,
                                     const model::LoadedModel& model);

// The same for a configuration, whose model is read. Errors: of LoadModel and AqnPlanFromConfig.
absl::StatusOr<std::vector<std::string>> AqnWarningsOf(const v1::RunConfig& config);

}  // namespace temper::cli
