#include "cli/noise_warnings.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"

namespace temper::cli {
namespace {

// Share of a norm's RMS above which its noise is worth a warning.
constexpr double kLargeShare = 0.25;

std::string WeightName(const numerics::NormId& norm) {
  switch (norm.kind) {
    case numerics::NormKind::kInputNorm:
      return absl::StrFormat("model.layers.%d.input_layernorm.weight", norm.layer);
    case numerics::NormKind::kPostAttentionNorm:
      return absl::StrFormat("model.layers.%d.post_attention_layernorm.weight", norm.layer);
    case numerics::NormKind::kFinalNorm:
      break;
  }
  return "model.norm.weight";
}

}  // namespace

std::vector<std::string> AqnWarnings(const numerics::AqnPlan& plan, int layers,
                                     const model::TensorMap& norms) {
  std::vector<std::string> lines;
  if (!plan.enabled) return lines;
  for (const numerics::NormId& norm : numerics::AqnNorms(layers)) {
    if (norm.kind == numerics::NormKind::kFinalNorm && !plan.final_norm) continue;
    double largest = 0.0;
    for (int64_t t = 0; t < plan.total_steps; ++t) {
      largest = std::max(largest, numerics::Sigma(plan, t) *
                                      numerics::LayerMultiplier(plan, norm.layer, layers, t));
    }
    const std::string name = WeightName(norm);
    const auto weight = norms.find(name);
    if (weight == norms.end()) continue;
    const double rms = numerics::RootMeanSquare(weight->second.values);
    const double share = plan.sigma_mode == numerics::SigmaMode::kRelativeToRms ? largest
                         : rms > 0                                              ? largest / rms
                                                                                : 0.0;
    if (share > kLargeShare) {
      lines.push_back(absl::StrFormat("AQN reaches %.0f %% of the RMS of %s (%.3g of %.3g)",
                                      100 * share, name, largest, rms));
    }
  }
  return lines;
}

absl::StatusOr<std::vector<std::string>> AqnWarningsOf(const v1::RunConfig& config) {
  if (!config.trainer().noise_injection().enabled()) return std::vector<std::string>();
  TEMPER_ASSIGN_OR_RETURN(const auto model, model::ModelReader::Open(config.model().path()));
  const int layers = static_cast<int>(model->config().num_layers);
  TEMPER_ASSIGN_OR_RETURN(const numerics::AqnPlan plan, config::AqnPlanFromConfig(config, layers));
  model::TensorMap norms;
  for (const numerics::NormId& norm : numerics::AqnNorms(layers)) {
    const std::string name = WeightName(norm);
    TEMPER_ASSIGN_OR_RETURN(norms[name], model->Read(name));
  }
  return AqnWarnings(plan, layers, norms);
}

}  // namespace temper::cli
