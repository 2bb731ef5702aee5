#include "numerics/noise_policy.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

double StrengthOf(const NoiseSpec& spec) {
  const std::string_view name = StrengthName(spec.error_type);
  if (name == "deadzone_threshold") return spec.deadzone_threshold;
  return name == "fault_magnitude" ? spec.fault_magnitude : spec.error_scale;
}

void CheckError(const NoiseSpec& spec, std::vector<std::string>* mistakes) {
  const ErrorType type = spec.error_type;
  const std::string_view strength_name = StrengthName(type);
  const auto unread = [&](bool given, std::string_view name) {
    if (!given) return;
    mistakes->push_back(
        absl::StrFormat("%s is no parameter of error_type %s", name, ErrorTypeName(type)));
  };
  const auto strength_unread = [&](double value, std::string_view name) {
    unread(value != 0.0 && name != strength_name, name);
  };
  strength_unread(spec.error_scale, "error_scale");
  strength_unread(spec.deadzone_threshold, "deadzone_threshold");
  strength_unread(spec.fault_magnitude, "fault_magnitude");
  unread(spec.spike_probability != 0.0 && type != ErrorType::kSpike, "spike_probability");
  unread(spec.relative && type != ErrorType::kSystematicBias, "relative");

  const double strength = StrengthOf(spec);
  const absl::Status in_range = CheckStrength(type, strength);
  if (!in_range.ok()) mistakes->emplace_back(in_range.message());
  const double p = spec.spike_probability;
  if (type == ErrorType::kSpike && !(p >= 0x1p-32 && p <= 1.0)) {
    mistakes->push_back(absl::StrFormat("spike_probability %g is outside 2^-32 .. 1", p));
  }
  if (spec.enabled && strength == 0.0 && !spec.null_arm) {
    mistakes->push_back(
        absl::StrFormat("%s is 0; say null_arm: true if that is meant", strength_name));
  }
}

std::array<std::array<double, 2>, kPhaseCount> PhaseScales(const NoiseSpec& spec) {
  std::array<std::array<double, 2>, kPhaseCount> scales = {};
  if (!spec.enabled) return scales;
  const double strength = StrengthOf(spec);
  std::array<bool, kPhaseCount> forward = ForwardPhases(spec.apply_during, spec.learner_noise);
  forward[static_cast<size_t>(Phase::kRefLogprob)] =
      spec.ref_logprob && forward[static_cast<size_t>(Phase::kOldLogprob)];
  for (size_t phase = 0; phase < forward.size(); ++phase) {
    if (forward[phase] && !spec.backward_only) scales[phase][0] = strength;
  }
  const bool backward = spec.apply_during != ApplyDuring::kRollout && !spec.forward_only;
  if (backward) scales[static_cast<size_t>(Phase::kTrain)][1] = strength;
  return scales;
}

}  // namespace

absl::StatusOr<NoisePolicy> NoisePolicy::Create(const NoiseSpec& spec, const ModelShape& shape) {
  std::vector<std::string> mistakes;
  if (shape.num_layers < 1 || shape.num_layers > kMaxSiteIndex + 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the model has %d layers; 1 .. %d can be named", shape.num_layers, kMaxSiteIndex + 1));
  }
  CheckError(spec, &mistakes);
  if (spec.forward_only && spec.backward_only) {
    mistakes.push_back("forward_only and backward_only together leave nothing");
  }

  NoisePolicy policy;
  policy.spec_ = spec;
  policy.shape_ = shape;
  policy.phase_scale_ = PhaseScales(spec);
  policy.selection_ = RowSelection::Create({.target_modules = spec.target_modules,
                                            .exclude_modules = spec.exclude_modules,
                                            .target_layers = spec.target_layers,
                                            .all_ops = spec.all_ops},
                                           shape, &mistakes);
  if (spec.enabled && mistakes.empty()) {
    if (policy.selection_.empty()) mistakes.push_back("the targets and excludes leave no operator");
    if (!policy.AnyNoise() && StrengthOf(spec) > 0.0) {
      mistakes.push_back(
          "apply_during, forward_only, backward_only and learner_noise leave no phase");
    }
  }
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  return policy;
}

double NoisePolicy::Scale(Phase phase, Direction direction, Operator op, int layer) const {
  const double scale = phase_scale_[static_cast<size_t>(phase)][static_cast<size_t>(direction)];
  return scale > 0.0 && selection_.Contains(op, layer) ? scale : 0.0;
}

OperatorError NoisePolicy::ErrorAt(double scale) const {
  return {.type = spec_.error_type,
          .strength = static_cast<float>(scale),
          .relative = spec_.relative,
          .spike_probability = spec_.spike_probability,
          .draw = spec_.gaussian};
}

OperatorError NoisePolicy::Error(Phase phase, Direction direction, Operator op, int layer) const {
  return ErrorAt(Scale(phase, direction, op, layer));
}

bool NoisePolicy::Any(Phase phase, Direction direction) const {
  return phase_scale_[static_cast<size_t>(phase)][static_cast<size_t>(direction)] > 0.0;
}

bool NoisePolicy::AnyNoise() const {
  for (const auto& directions : phase_scale_) {
    if (directions[0] > 0.0 || directions[1] > 0.0) return true;
  }
  return false;
}

uint64_t NoisePolicy::Fingerprint() const {
  std::string text = "noise-1";
  if (AnyNoise()) {
    absl::StrAppendFormat(&text, " type=%d gradient=%d key=%d learner=%d",
                          static_cast<int>(spec_.error_type),
                          static_cast<int>(spec_.error_gradient), static_cast<int>(spec_.noise_key),
                          static_cast<int>(spec_.learner_noise));
    if (spec_.relative) text += " relative";
    if (spec_.gaussian == GaussianDraw::kFast) text += " fast";
    if (spec_.error_type == ErrorType::kSpike) {
      absl::StrAppendFormat(&text, " probability=%a", spec_.spike_probability);
    }
    if (spec_.noise_key == NoiseKey::kFrozen) {
      absl::StrAppendFormat(&text, " device=%d", spec_.device_seed);
    }
    for (const auto& directions : phase_scale_) {
      absl::StrAppendFormat(&text, " %a/%a", directions[0], directions[1]);
    }
    absl::StrAppendFormat(&text, " layers=%d ", shape_.num_layers);
    text += selection_.Cells();
  }
  text += injection_.FingerprintText();
  const uint64_t hash = XXH3_64bits(text.data(), text.size());
  return hash == 0 ? 1 : hash;
}

std::string NoisePolicy::Describe() const {
  if (!AnyNoise()) return "no operator error";
  std::vector<std::string> phases;
  for (int p = 0; p < kPhaseCount; ++p) {
    for (int d = 0; d < 2; ++d) {
      const auto phase = static_cast<Phase>(p);
      const auto direction = static_cast<Direction>(d);
      if (Any(phase, direction)) {
        phases.push_back(absl::StrFormat("%s %s", PhaseName(phase), DirectionName(direction)));
      }
    }
  }
  double scale = 0.0;
  for (const auto& directions : phase_scale_)
    scale = std::max({scale, directions[0], directions[1]});
  return absl::StrFormat("%s on %s in %s", DescribeError(ErrorAt(scale)), selection_.Describe(),
                         absl::StrJoin(phases, ", "));
}

NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale, bool injected) {
  TEMPER_CHECK(CheckStrength(base.error_type(), scale).ok(), "the caller validated the scale");
  TEMPER_CHECK(scale == 0.0 || base.shape_.num_layers > 0, "base was made by Create");
  TEMPER_CHECK(!injected || base.injection_.enabled(), "an injection that there is");
  NoisePolicy policy = base;
  policy.spec_.enabled = scale > 0.0;
  policy.phase_scale_ = {};
  policy.phase_scale_[static_cast<size_t>(Phase::kEval)][0] = scale;
  policy.injection_ = injected ? base.injection_.ForEvaluation() : InjectionPolicy();
  return policy;
}

uint64_t NoiseId(uint64_t policy_fingerprint, uint64_t aqn_fingerprint) {
  const std::string text =
      absl::StrFormat("noise-id-1 %016x %016x", policy_fingerprint, aqn_fingerprint);
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace temper::numerics
