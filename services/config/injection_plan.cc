#include "services/config/injection_plan.h"

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/config/noise_plan.h"

namespace temper::config {
namespace {

absl::Status NoName(const char* key, const std::string& value, const char* of) {
  return absl::InvalidArgumentError(
      absl::StrCat("trainer.hw_error_injection.", key, ": '", value, "' is no ", of));
}

double StrengthOf(const v1::HwErrorInjectionConfig& block, numerics::ErrorType type) {
  const std::string_view name = numerics::StrengthName(type);
  if (name == "deadzone_threshold") return block.deadzone_threshold();
  return name == "fault_magnitude" ? block.fault_magnitude() : block.error_scale();
}

}  // namespace

absl::StatusOr<numerics::InjectionSpec> InjectionSpecFromConfig(const v1::RunConfig& config) {
  const v1::HwErrorInjectionConfig& block = config.trainer().hw_error_injection();
  numerics::InjectionSpec spec;
  spec.enabled = block.enabled();
  if (const auto format = numerics::NumberFormatFromName(block.error_type())) {
    spec.format = numerics::FormatSpec{.format = *format,
                                       .block_2d = block.block_2d(),
                                       .stochastic_rounding = block.stochastic_rounding()};
  } else if (const auto type = numerics::ErrorTypeFromName(block.error_type())) {
    const bool spike = *type == numerics::ErrorType::kSpike;
    spec.error = {.type = *type,
                  .strength = static_cast<float>(StrengthOf(block, *type)),
                  .relative = *type == numerics::ErrorType::kSystematicBias && block.relative(),
                  .spike_probability = spike ? block.spike_probability() : 0.0};
  } else {
    return NoName("error_type", block.error_type(), "number format or type of error");
  }
  const auto point = numerics::InjectionPointFromName(block.injection_point());
  if (!point.has_value()) {
    return NoName("injection_point", block.injection_point(), "injection point");
  }
  spec.point = *point;
  spec.apply_during = ApplyDuringOf(block.apply_during());
  spec.learner_noise = LearnerNoiseOf(config.trainer().learner_noise());
  spec.target_modules.assign(block.target_modules().begin(), block.target_modules().end());
  spec.exclude_modules.assign(block.exclude_modules().begin(), block.exclude_modules().end());
  spec.target_layers.assign(block.target_layers().begin(), block.target_layers().end());
  spec.null_arm = config.trainer().null_arm();
  return spec;
}

absl::StatusOr<numerics::InjectionPolicy> InjectionFromConfig(const v1::RunConfig& config,
                                                              const numerics::ModelShape& shape) {
  TEMPER_ASSIGN_OR_RETURN(const numerics::InjectionSpec spec, InjectionSpecFromConfig(config));
  return numerics::InjectionPolicy::Create(spec, shape);
}

std::string InjectionName(const v1::RunConfig& config) {
  const absl::StatusOr<numerics::InjectionSpec> spec = InjectionSpecFromConfig(config);
  return spec.ok() && spec->enabled ? spec->Name() : std::string();
}

std::optional<InjectedEvaluation> InjectedEvaluationOf(const v1::RunConfig& config) {
  const absl::StatusOr<numerics::InjectionSpec> spec = InjectionSpecFromConfig(config);
  if (!spec.ok() || !spec->enabled || !(spec->format || spec->error.acts())) return std::nullopt;
  const v1::NoisyOpsConfig& noisy = config.trainer().noisy_ops();
  const auto error = ErrorFromConfig(noisy);
  InjectedEvaluation evaluation;
  evaluation.error_scale = noisy.enabled() ? ErrorStrength(noisy) : 0.0;
  const bool noisy_draws = evaluation.error_scale > 0.0 && noisy.noise_key() != "frozen" &&
                           error.ok() && error->random();
  evaluation.draws = spec->draws() || noisy_draws || config.eval().temperature() > 0;
  if (evaluation.draws) {
    evaluation.noise_seeds = config.eval().noise_seeds();
  }
  return evaluation;
}

}  // namespace temper::config
