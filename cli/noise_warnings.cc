#include "cli/noise_warnings.h"

#include "absl/strings/str_format.h"
#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"

namespace temper::cli {
namespace {

// Share of a norm's RMS above which its noise is worth a warning.
constexpr double kLargeShare = 0.25;

std::string WeightName(const numerics::AqnTarget& target) {
  return numerics::OperatorPath(target.op, target.layer) + ".weight";
}

}  // namespace

absl::StatusOr<std::vector<std::string>> AqnWarnings(const numerics::AqnPlan& plan,
                                                     const numerics::ModelShape& shape,
                                                     const model::TensorMap& weights) {
  std::vector<std::string> lines;
  if (!plan.enabled) return lines;
  for (const numerics::AqnTarget& target : numerics::AqnTargets(plan, shape)) {
    const std::string name = WeightName(target);
    const auto weight = weights.find(name);
    if (weight == weights.end()) continue;
    const double rms = numerics::RootMeanSquare(weight->second.values);
    TEMPER_RETURN_IF_ERROR(numerics::CheckLinearShare(plan, target, shape.num_layers, rms));
    const double share = numerics::LargestAqnShare(plan, target, shape.num_layers, rms);
    if (share > kLargeShare) {
      lines.push_back(absl::StrFormat("AQN reaches %.0f %% of the RMS of %s (%.3g of %.3g)",
                                      100 * share, name, share * rms, rms));
    }
  }
  return lines;
}

absl::StatusOr<std::vector<std::string>> AqnWarningsOf(const v1::RunConfig& config) {
  if (!config.trainer().noise_injection().enabled()) return std::vector<std::string>();
  TEMPER_ASSIGN_OR_RETURN(const auto model, model::ModelReader::Open(config.model().path()));
  const numerics::ModelShape shape = {.num_layers = static_cast<int>(model->config().num_layers),
                                      .qk_norm = model->config().qk_norm};
  TEMPER_ASSIGN_OR_RETURN(const numerics::AqnPlan plan, config::AqnPlanFromConfig(config, shape));
  model::TensorMap weights;
  for (const numerics::AqnTarget& target : numerics::AqnTargets(plan, shape)) {
    const std::string name = WeightName(target);
    TEMPER_ASSIGN_OR_RETURN(weights[name], model->Read(name));
  }
  return AqnWarnings(plan, shape, weights);
}

}  // namespace temper::cli
