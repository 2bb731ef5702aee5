#include "numerics/aqn.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace temper::numerics {
namespace {

// The model of the findings that the presets were written for.
constexpr int kPresetLayers = 28;
constexpr int64_t kMaxSteps = int64_t{1} << 24;
constexpr int64_t kMaxStages = int64_t{1} << 20;

// start * (end / start)^(numerator / denominator), and exactly start or end at its ends.
double Geometric(double start, double end, int64_t numerator, int64_t denominator) {
  if (numerator <= 0 || denominator <= 0) return start;
  if (numerator >= denominator) return end;
  return start *
         std::pow(end / start, static_cast<double>(numerator) / static_cast<double>(denominator));
}

// Stage i of K of the `global` schedule.
double GlobalStage(const AqnPlan& plan, int64_t i, int64_t stages) {
  if (stages == 1) return plan.sigma_start;
  if (i == 0) return 0.0;
  return Geometric(plan.sigma_start, plan.sigma_end, std::min(i - 1, stages - 2), stages - 2);
}

double EpochAware(const AqnPlan& plan, int64_t t) {
  const int64_t steps = std::max<int64_t>(plan.steps_per_epoch, 1);
  const int64_t epoch = std::min(t / steps, plan.epochs - 1);
  const int64_t stages = plan.stages_per_epoch;
  const int64_t i = (t % steps) * (stages + 1) / steps;
  if (i == 0) return 0.0;
  const double from = Geometric(plan.sigma_start, plan.sigma_end, epoch, plan.epochs);
  const double to = Geometric(plan.sigma_start, plan.sigma_end, epoch + 1, plan.epochs);
  return Geometric(from, to, std::min(i - 1, stages - 1), stages - 1);
}

// The layer of the 28-layer model that a layer stands for.
int PresetLayer(int layer, int num_layers) {
  return kPresetLayers * (2 * layer + 1) / (2 * num_layers);
}

double PresetMultiplier(const AqnPlan& plan, int layer, int num_layers, int64_t t) {
  const int l = PresetLayer(layer, num_layers);
  switch (plan.layers.preset) {
    case LayerPreset::kTargeted:
      return l >= 14 && l <= 17 ? 1.0 : 0.0;
    case LayerPreset::kVariable:
      if (l >= 14 && l <= 17) return 1.5;
      return (l >= 10 && l <= 13) || (l >= 18 && l <= 21) ? 1.2 : 1.0;
    case LayerPreset::kZone:
      return l >= 6 && l <= 22 && 2 * t >= plan.total_steps ? 0.5 : 1.0;
    case LayerPreset::kDepthHeuristic:
      return layer >= 2 * num_layers / 5 && layer <= 3 * num_layers / 5 ? 1.0 : 0.0;
    case LayerPreset::kNone:
      break;
  }
  return 1.0;
}

// Selected without being named.
bool OnByDefault(const AqnPlan& plan, Operator op) {
  if (op == Operator::kQNorm || op == Operator::kKNorm) return false;
  return IsNorm(op) ? plan.norms : plan.linears;
}

bool PatternSelects(const AqnPlan& plan, const std::string& pattern, const AqnTarget& target) {
  return OnByDefault(plan, target.op) ? PatternSelects(pattern, target.op, target.layer)
                                      : PatternNames(pattern, target.op, target.layer);
}

bool UsesEpochs(AqnSchedule schedule) {
  return schedule == AqnSchedule::kEpochAware || schedule == AqnSchedule::kEpochRestart;
}

void CheckSchedule(const AqnPlan& plan, bool null_arm, std::vector<std::string>* mistakes) {
  auto require = [mistakes](bool ok, std::string mistake) {
    if (!ok) mistakes->push_back(std::move(mistake));
  };
  require(std::isfinite(plan.sigma_start) && plan.sigma_start >= 0.0,
          absl::StrFormat("sigma_start %g is not a finite number >= 0", plan.sigma_start));
  require(plan.total_steps >= 1 && plan.total_steps <= kMaxSteps,
          absl::StrFormat("total_steps %d is not in 1 .. %d", plan.total_steps, kMaxSteps));
  if (plan.schedule != AqnSchedule::kConstant) {
    require(std::isfinite(plan.sigma_end) && (plan.sigma_end > 0.0 || null_arm),
            absl::StrFormat("sigma_end %g is not a finite number > 0", plan.sigma_end));
  }
  if (plan.schedule == AqnSchedule::kGlobal) {
    require(plan.num_stages >= 1 && plan.num_stages <= kMaxStages,
            absl::StrFormat("num_stages %d is not in 1 .. %d", plan.num_stages, kMaxStages));
  }
  if (UsesEpochs(plan.schedule)) {
    require(plan.stages_per_epoch >= 1 && plan.stages_per_epoch < kMaxStages,
            absl::StrFormat("stages_per_epoch %d is not in 1 .. %d", plan.stages_per_epoch,
                            kMaxStages - 1));
    require(plan.epochs >= 1 && plan.epochs <= kMaxSteps,
            absl::StrFormat("epochs %d is not in 1 .. %d", plan.epochs, kMaxSteps));
    require(plan.steps_per_epoch >= 1 && plan.steps_per_epoch <= kMaxSteps,
            absl::StrFormat("steps_per_epoch %d is not in 1 .. %d: an epoch schedule needs it",
                            plan.steps_per_epoch, kMaxSteps));
  }
}

void CheckLayers(const AqnPlan& plan, int num_layers, std::vector<std::string>* mistakes) {
  const LayerSigmaConfig& layers = plan.layers;
  if (!layers.enabled) return;
  if (layers.preset != LayerPreset::kNone && !layers.layer_multipliers.empty()) {
    mistakes->push_back("layer_sigma_config has a preset and layer_multipliers: one of them only");
  }
  if (!std::isfinite(layers.default_multiplier) || layers.default_multiplier < 0.0) {
    mistakes->push_back(absl::StrFormat("default_multiplier %g is not a finite number >= 0",
                                        layers.default_multiplier));
  }
  for (const auto& [layer, multiplier] : layers.layer_multipliers) {
    if (layer < 0 || layer >= num_layers) {
      mistakes->push_back(absl::StrFormat("layer_multipliers names layer %d; the model has 0 .. %d",
                                          layer, num_layers - 1));
    }
    if (!std::isfinite(multiplier) || multiplier < 0.0) {
      mistakes->push_back(
          absl::StrFormat("the multiplier %g of layer %d is not a number >= 0", multiplier, layer));
    }
  }
}

void CheckTargets(const AqnPlan& plan, const ModelShape& shape,
                  std::vector<std::string>* mistakes) {
  std::vector<AqnTarget> candidates = AqnNorms(shape);
  for (const AqnTarget& linear : AqnLinears(shape)) candidates.push_back(linear);
  for (const std::string& pattern : plan.target_modules) {
    const bool any =
        std::any_of(candidates.begin(), candidates.end(),
                    [&](const AqnTarget& target) { return PatternSelects(plan, pattern, target); });
    if (any) continue;
    mistakes->push_back(absl::StrFormat(
        "target_modules: '%s' selects no norm of this model (%d layers, %s); q_norm, k_norm and "
        "linears are selected by name only, and a dense model has no router",
        pattern, shape.num_layers, shape.qk_norm ? "with q_norm and k_norm" : "no q_norm"));
  }
  // Under a preset the final norm alone is no selection of layers.
  const std::vector<AqnTarget> targets = AqnTargets(plan, shape);
  const bool layers_chosen = plan.layers.enabled && plan.layers.preset != LayerPreset::kNone;
  const bool any = std::any_of(targets.begin(), targets.end(), [&](const AqnTarget& target) {
    return target.layer >= 0 || !layers_chosen;
  });
  if (!any) {
    mistakes->push_back(absl::StrFormat(
        "layer_sigma_config and target_modules select none of the model's %d layers",
        shape.num_layers));
  }
  const bool linears = std::any_of(targets.begin(), targets.end(),
                                   [](const AqnTarget& target) { return !IsNorm(target.op); });
  if (linears && plan.draw == AqnDrawScope::kPerGroup) {
    mistakes->push_back("draw per_group: of norms only, the weights of linears are packed once");
  }
}

bool SigmaIsZeroAtEveryStep(const AqnPlan& plan) {
  if (plan.sigma_start == 0.0) return true;
  for (int64_t t = plan.total_steps - 1; t >= 0; --t) {
    if (Sigma(plan, t) != 0.0) return false;  // usually the last step already
  }
  return true;
}

}  // namespace

double Sigma(const AqnPlan& plan, int64_t t) {
  if (!plan.enabled) return 0.0;
  // A run without updates (an evaluation) has T = 0 and samples at t = 0 only.
  const int64_t total = std::max<int64_t>(plan.total_steps, 1);
  t = std::clamp<int64_t>(t, 0, total - 1);
  switch (plan.schedule) {
    case AqnSchedule::kNone:
      return 0.0;
    case AqnSchedule::kConstant:
      return plan.sigma_start;
    case AqnSchedule::kGlobal:
      return GlobalStage(plan, t * plan.num_stages / total, plan.num_stages);
    case AqnSchedule::kEpochAware:
      return EpochAware(plan, t);
    case AqnSchedule::kEpochRestart: {
      const int64_t stages = plan.stages_per_epoch + 1;
      const int64_t steps = std::max<int64_t>(plan.steps_per_epoch, 1);
      return GlobalStage(plan, (t % steps) * stages / steps, stages);
    }
  }
  return 0.0;
}

double LayerMultiplier(const AqnPlan& plan, int layer, int num_layers, int64_t t) {
  const LayerSigmaConfig& layers = plan.layers;
  if (layer < 0 && !plan.final_norm) return 0.0;
  if (!layers.enabled) return 1.0;
  if (layer < 0) return layers.default_multiplier;
  if (layers.preset != LayerPreset::kNone) return PresetMultiplier(plan, layer, num_layers, t);
  const auto it = layers.layer_multipliers.find(layer);
  return it == layers.layer_multipliers.end() ? layers.default_multiplier : it->second;
}

absl::Status ValidateAqn(const AqnPlan& plan, const ModelShape& shape, bool null_arm) {
  if (!plan.enabled || plan.schedule == AqnSchedule::kNone) return absl::OkStatus();
  std::vector<std::string> mistakes;
  CheckSchedule(plan, null_arm, &mistakes);
  if (shape.num_layers < 1) {
    mistakes.push_back(absl::StrFormat("a model of %d layers has no norms", shape.num_layers));
  } else {
    CheckLayers(plan, shape.num_layers, &mistakes);
    CheckTargets(plan, shape, &mistakes);
  }
  if (mistakes.empty() && !null_arm && SigmaIsZeroAtEveryStep(plan)) {
    mistakes.push_back("sigma is 0 at every step; say null_arm: true if that is meant");
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

std::vector<AqnTarget> AqnNorms(const ModelShape& shape) {
  std::vector<AqnTarget> norms;
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    norms.push_back({layer, Operator::kInputNorm});
    if (shape.qk_norm) {
      norms.push_back({layer, Operator::kQNorm});
      norms.push_back({layer, Operator::kKNorm});
    }
    norms.push_back({layer, Operator::kPostAttentionNorm});
  }
  norms.push_back({kNoLayer, Operator::kFinalNorm});
  return norms;
}

std::vector<AqnTarget> AqnLinears(const ModelShape& shape) {
  std::vector<AqnTarget> linears;
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    for (const Operator op : {Operator::kQ, Operator::kK, Operator::kV, Operator::kO,
                              Operator::kGate, Operator::kUp, Operator::kDown}) {
      linears.push_back({layer, op});
    }
  }
  return linears;
}

bool IsNorm(Operator op) { return op >= Operator::kRmsNorm; }

bool IsAqnSelected(const AqnPlan& plan, const AqnTarget& target) {
  if (plan.target_modules.empty()) return OnByDefault(plan, target.op);
  return std::any_of(
      plan.target_modules.begin(), plan.target_modules.end(),
      [&](const std::string& pattern) { return PatternSelects(plan, pattern, target); });
}

double AqnMultiplier(const AqnPlan& plan, const AqnTarget& target, int num_layers, int64_t t) {
  return IsAqnSelected(plan, target) ? LayerMultiplier(plan, target.layer, num_layers, t) : 0.0;
}

std::vector<AqnTarget> AqnTargets(const AqnPlan& plan, const ModelShape& shape) {
  std::vector<AqnTarget> targets = AqnNorms(shape);
  for (const AqnTarget& linear : AqnLinears(shape)) targets.push_back(linear);
  // No preset is 0 at one step and above it at another.
  std::erase_if(targets, [&](const AqnTarget& target) {
    return !(AqnMultiplier(plan, target, shape.num_layers, 0) > 0.0);
  });
  return targets;
}

std::string AqnTargetName(const AqnTarget& target) {
  const std::string name(OperatorName(target.op));
  return target.layer < 0 ? name : absl::StrCat("layers.", target.layer, ".", name);
}

uint64_t Fingerprint(const AqnPlan& plan) {
  std::string text = "aqn-1";
  if (plan.enabled && plan.schedule != AqnSchedule::kNone) {
    absl::StrAppendFormat(&text, " schedule=%d start=%a end=%a stages=%d per_epoch=%d",
                          static_cast<int>(plan.schedule), plan.sigma_start, plan.sigma_end,
                          plan.num_stages, plan.stages_per_epoch);
    absl::StrAppendFormat(&text, " T=%d E=%d P=%d mode=%d draw=%d learner=%d final=%d",
                          plan.total_steps, plan.epochs, plan.steps_per_epoch,
                          static_cast<int>(plan.sigma_mode), static_cast<int>(plan.draw),
                          plan.in_learner ? 1 : 0, plan.final_norm ? 1 : 0);
    absl::StrAppendFormat(&text, " norms=%d linears=%d", plan.norms ? 1 : 0, plan.linears ? 1 : 0);
    for (const std::string& pattern : plan.target_modules) absl::StrAppend(&text, " ", pattern);
    if (plan.layers.enabled) {
      absl::StrAppendFormat(&text, " preset=%d default=%a", static_cast<int>(plan.layers.preset),
                            plan.layers.default_multiplier);
      for (const auto& [layer, multiplier] : plan.layers.layer_multipliers) {
        absl::StrAppendFormat(&text, " %d:%a", layer, multiplier);
      }
    }
  }
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace temper::numerics
