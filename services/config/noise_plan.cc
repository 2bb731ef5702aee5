#include "services/config/noise_plan.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/config/injection_plan.h"

namespace temper::config {
namespace {

// Layers of the findings document's model, Qwen2.5-1.5B.
constexpr int kReferenceLayers = 28;

// The parameters that the type reads; IdleFields refuses the others where they are given.
void FillError(const v1::NoisyOpsConfig& noisy, const numerics::OperatorError& error,
               numerics::NoiseSpec* spec) {
  spec->error_type = error.type;
  const std::string_view strength = numerics::StrengthName(error.type);
  if (strength == "error_scale") spec->error_scale = noisy.error_scale();
  if (strength == "deadzone_threshold") spec->deadzone_threshold = noisy.deadzone_threshold();
  if (strength == "fault_magnitude") spec->fault_magnitude = noisy.fault_magnitude();
  spec->relative = error.relative;
  spec->spike_probability = error.spike_probability;
}

numerics::GaussianDraw DrawOf(const v1::NoisyOpsConfig& noisy) {
  return noisy.gaussian() == "fast" ? numerics::GaussianDraw::kFast
                                    : numerics::GaussianDraw::kExact;
}

absl::StatusOr<numerics::NoiseSpec> SpecOf(const v1::RunConfig& config) {
  const v1::NoisyOpsConfig& noisy = config.trainer().noisy_ops();
  numerics::NoiseSpec spec;
  spec.enabled = noisy.enabled();
  TEMPER_ASSIGN_OR_RETURN(const numerics::OperatorError error, ErrorFromConfig(noisy));
  FillError(noisy, error, &spec);
  spec.gaussian = error.draw;
  spec.forward_only = noisy.forward_only();
  spec.backward_only = noisy.backward_only();
  spec.apply_during = ApplyDuringOf(noisy.apply_during());
  spec.learner_noise = LearnerNoiseOf(config.trainer().learner_noise());
  spec.error_gradient = noisy.error_gradient() == "straight_through"
                            ? numerics::ErrorGradient::kStraightThrough
                            : numerics::ErrorGradient::kPathwise;
  spec.noise_key =
      noisy.noise_key() == "frozen" ? numerics::NoiseKey::kFrozen : numerics::NoiseKey::kFresh;
  spec.device_seed = config.seed();
  spec.target_modules.assign(noisy.target_modules().begin(), noisy.target_modules().end());
  spec.exclude_modules.assign(noisy.exclude_modules().begin(), noisy.exclude_modules().end());
  spec.target_layers.assign(noisy.target_layers().begin(), noisy.target_layers().end());
  spec.all_ops = noisy.all_ops();
  spec.null_arm = config.trainer().null_arm();
  return spec;
}

absl::StatusOr<numerics::AqnSchedule> ScheduleOf(const std::string& name) {
  if (name == "global") return numerics::AqnSchedule::kGlobal;
  if (name == "epoch_aware") return numerics::AqnSchedule::kEpochAware;
  if (name == "epoch_restart") return numerics::AqnSchedule::kEpochRestart;
  if (name == "constant") return numerics::AqnSchedule::kConstant;
  if (name == "none") return numerics::AqnSchedule::kNone;
  return absl::InvalidArgumentError(
      absl::StrCat("trainer.noise_injection.schedule: '", name,
                   "' is none of global, epoch_aware, epoch_restart, constant, none"));
}

absl::StatusOr<numerics::LayerPreset> PresetOf(const std::string& name) {
  if (name.empty()) return numerics::LayerPreset::kNone;
  if (name == "targeted") return numerics::LayerPreset::kTargeted;
  if (name == "variable") return numerics::LayerPreset::kVariable;
  if (name == "zone") return numerics::LayerPreset::kZone;
  if (name == "depth_heuristic") return numerics::LayerPreset::kDepthHeuristic;
  if (name == "from_scan") return numerics::LayerPreset::kNone;  // its multipliers are in the map
  return absl::InvalidArgumentError(
      absl::StrCat("trainer.noise_injection.layer_sigma_config.preset: '", name,
                   "' is none of targeted, variable, zone, depth_heuristic, from_scan"));
}

// from_scan and its file come together. resolved: the multipliers must be there by now, since a
// process of the run has no scan file to look at.
absl::Status CheckScan(const v1::LayerSigmaConfig& layers, bool resolved) {
  const bool from_scan = layers.preset() == "from_scan";
  if (from_scan != !layers.scan_file().empty()) {
    return absl::InvalidArgumentError(
        "trainer.noise_injection.layer_sigma_config: preset from_scan and scan_file come together");
  }
  if (from_scan && resolved && layers.enabled() && layers.layer_multipliers().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "trainer.noise_injection.layer_sigma_config: the multipliers of ", layers.scan_file(),
        " were not read; `temper run` and `temper check` do that when they load the recipe"));
  }
  return absl::OkStatus();
}

absl::Status CheckNames(const v1::NoiseInjectionConfig& aqn) {
  const auto one_of = [](const char* key, const std::string& value, const char* a, const char* b,
                         const char* c) -> absl::Status {
    if (value == a || value == b || value == c) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("trainer.noise_injection.", key, ": '", value,
                                                   "' is none of ", a, ", ", b, ", ", c));
  };
  TEMPER_RETURN_IF_ERROR(
      one_of("sigma_mode", aqn.sigma_mode(), "absolute", "relative_to_rms", "absolute"));
  TEMPER_RETURN_IF_ERROR(one_of("draw", aqn.draw(), "per_version", "per_group", "per_worker"));
  TEMPER_RETURN_IF_ERROR(one_of("where", aqn.where(), "rollout", "both", "rollout"));
  for (const std::string& type : aqn.layer_types()) {
    if (type != "rmsnorm" && type != "linear") {
      return absl::InvalidArgumentError(absl::StrCat("trainer.noise_injection.layer_types: '", type,
                                                     "' is none of rmsnorm, linear"));
    }
  }
  return absl::OkStatus();
}

bool Holds(const google::protobuf::RepeatedPtrField<std::string>& names, const char* name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Validates against `shape`, or, without a model, against one that is deep enough for every layer
// that is named; patterns then wait for a model.
absl::Status Check(numerics::AqnPlan plan, numerics::ModelShape shape, bool null_arm) {
  if (shape.num_layers < 0) {
    shape.num_layers = kReferenceLayers;
    for (const auto& [layer, multiplier] : plan.layers.layer_multipliers) {
      shape.num_layers = std::max(shape.num_layers, layer + 1);
    }
    plan.target_modules.clear();
  }
  return numerics::ValidateAqn(plan, shape, null_arm);
}

}  // namespace

numerics::ApplyDuring ApplyDuringOf(const std::string& name) {
  if (name == "rollout") return numerics::ApplyDuring::kRollout;
  if (name == "training") return numerics::ApplyDuring::kTraining;
  return numerics::ApplyDuring::kBoth;
}

numerics::LearnerNoise LearnerNoiseOf(const std::string& name) {
  if (name == "fresh") return numerics::LearnerNoise::kFresh;
  if (name == "none") return numerics::LearnerNoise::kNone;
  return numerics::LearnerNoise::kSame;
}

double ErrorStrength(const v1::NoisyOpsConfig& noisy) {
  const auto type = numerics::ErrorTypeFromName(noisy.error_type());
  const std::string_view name =
      numerics::StrengthName(type.value_or(numerics::ErrorType::kRelativeGaussian));
  if (name == "deadzone_threshold") return noisy.deadzone_threshold();
  return name == "fault_magnitude" ? noisy.fault_magnitude() : noisy.error_scale();
}

absl::StatusOr<numerics::OperatorError> ErrorFromConfig(const v1::NoisyOpsConfig& noisy) {
  const auto type = numerics::ErrorTypeFromName(noisy.error_type());
  if (!type.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("trainer.noisy_ops.error_type: '",
                                                   noisy.error_type(), "' is no type of error"));
  }
  const bool spike = *type == numerics::ErrorType::kSpike;
  const bool bias = *type == numerics::ErrorType::kSystematicBias;
  return numerics::OperatorError{.type = *type,
                                 .strength = static_cast<float>(ErrorStrength(noisy)),
                                 .relative = bias && noisy.relative(),
                                 .spike_probability = spike ? noisy.spike_probability() : 0.0,
                                 .draw = DrawOf(noisy)};
}

absl::StatusOr<numerics::NoisePolicy> NoisePolicyFromConfig(const v1::RunConfig& config,
                                                            const numerics::ModelShape& shape) {
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoiseSpec spec, SpecOf(config));
  TEMPER_ASSIGN_OR_RETURN(numerics::NoisePolicy policy, numerics::NoisePolicy::Create(spec, shape));
  TEMPER_ASSIGN_OR_RETURN(numerics::InjectionPolicy injection, InjectionFromConfig(config, shape));
  policy.set_injection(std::move(injection));
  return policy;
}

absl::StatusOr<numerics::NoisePolicy> EvaluationPolicyFromConfig(const v1::RunConfig& config,
                                                                 const numerics::ModelShape& shape,
                                                                 double error_scale,
                                                                 bool injected) {
  TEMPER_ASSIGN_OR_RETURN(numerics::NoiseSpec spec, SpecOf(config));
  TEMPER_RETURN_IF_ERROR(numerics::CheckStrength(spec.error_type, error_scale));
  spec.null_arm = true;  // a clean evaluation is meant
  TEMPER_ASSIGN_OR_RETURN(numerics::NoisePolicy base, numerics::NoisePolicy::Create(spec, shape));
  if (injected) {
    TEMPER_ASSIGN_OR_RETURN(numerics::InjectionPolicy injection,
                            InjectionFromConfig(config, shape));
    if (!injection.enabled()) {
      return absl::InvalidArgumentError(
          "an evaluation under trainer.hw_error_injection, which is off");
    }
    base.set_injection(std::move(injection));
  }
  return numerics::EvaluationPolicy(base, error_scale, injected);
}

absl::StatusOr<numerics::AqnPlan> AqnPlanFromConfig(const v1::RunConfig& config,
                                                    const numerics::ModelShape& shape) {
  const v1::TrainerConfig& trainer = config.trainer();
  const v1::NoiseInjectionConfig& aqn = trainer.noise_injection();
  TEMPER_RETURN_IF_ERROR(CheckNames(aqn));
  numerics::AqnPlan plan;
  plan.enabled = aqn.enabled();
  TEMPER_ASSIGN_OR_RETURN(plan.schedule, ScheduleOf(aqn.schedule()));
  plan.sigma_start = aqn.sigma_start();
  plan.sigma_end = aqn.sigma_end();
  plan.num_stages = aqn.num_stages();
  plan.stages_per_epoch = aqn.stages_per_epoch();
  plan.total_steps = static_cast<int64_t>(trainer.total_updates());
  plan.epochs = static_cast<int64_t>(trainer.epochs());
  plan.steps_per_epoch = static_cast<int64_t>(trainer.updates_per_epoch());
  plan.sigma_mode = aqn.sigma_mode() == "relative_to_rms" ? numerics::SigmaMode::kRelativeToRms
                                                          : numerics::SigmaMode::kAbsolute;
  plan.draw = aqn.draw() == "per_group"    ? numerics::AqnDrawScope::kPerGroup
              : aqn.draw() == "per_worker" ? numerics::AqnDrawScope::kPerWorker
                                           : numerics::AqnDrawScope::kPerVersion;
  plan.in_learner = aqn.where() == "both";
  plan.final_norm = aqn.final_norm();
  plan.norms = Holds(aqn.layer_types(), "rmsnorm");
  plan.linears = Holds(aqn.layer_types(), "linear");
  plan.target_modules.assign(aqn.target_modules().begin(), aqn.target_modules().end());
  plan.force = aqn.force();
  const v1::LayerSigmaConfig& layers = aqn.layer_sigma_config();
  plan.layers.enabled = layers.enabled();
  plan.layers.default_multiplier = layers.default_multiplier();
  for (const auto& [layer, multiplier] : layers.layer_multipliers()) {
    plan.layers.layer_multipliers[layer] = multiplier;
  }
  TEMPER_ASSIGN_OR_RETURN(plan.layers.preset, PresetOf(layers.preset()));
  TEMPER_RETURN_IF_ERROR(CheckScan(layers, /*resolved=*/plan.enabled && shape.num_layers >= 0));
  // A run without updates (an evaluation) has no schedule to check.
  if (plan.enabled && plan.total_steps > 0) {
    numerics::AqnPlan checked = plan;
    // Which layers a scan selects is known once it was read.
    if (!layers.scan_file().empty() && layers.layer_multipliers().empty()) {
      checked.layers.enabled = false;
    }
    TEMPER_RETURN_IF_ERROR(Check(std::move(checked), shape, trainer.null_arm()));
  }
  return plan;
}

uint64_t NoiseId(const numerics::NoisePolicy& policy, const numerics::AqnPlan& plan) {
  return numerics::NoiseId(policy.Fingerprint(), numerics::Fingerprint(plan));
}

}  // namespace temper::config
