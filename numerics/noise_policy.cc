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

// The row an operator is looked up in: the norms share one.
Operator RowOperator(Operator op) {
  switch (op) {
    case Operator::kInputNorm:
    case Operator::kPostAttentionNorm:
    case Operator::kFinalNorm:
      return Operator::kRmsNorm;
    default:
      return op;
  }
}

bool HasRow(Operator op, int layer, const ModelShape& shape) {
  switch (op) {
    case Operator::kLmHead:
      return layer < 0;
    case Operator::kRmsNorm:
      return true;
    case Operator::kRouter:
      return layer >= 0 && shape.num_experts > 0;
    case Operator::kLoraA:
    case Operator::kLoraB:
      return layer >= 0 && shape.has_lora;
    case Operator::kInputNorm:
    case Operator::kPostAttentionNorm:
    case Operator::kFinalNorm:
      return false;  // rows of kRmsNorm
    default:
      return layer >= 0;
  }
}

// Selected without being named: the decoder's linears and, with all_ops, what is not a matmul.
bool OnByDefault(Operator op, const NoiseSpec& spec) {
  if (op <= Operator::kDown) return true;
  return spec.all_ops &&
         (op == Operator::kSoftmax || op == Operator::kSilu || op == Operator::kRmsNorm);
}

std::string_view LastComponent(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

bool Matches(std::string_view pattern, Operator op, int layer) {
  const std::string path = OperatorPath(op, layer);
  if (PathMatches(pattern, path)) return true;
  const std::string_view last = LastComponent(path);
  const std::string alias =
      path.substr(0, path.size() - last.size()) + std::string(OperatorName(op));
  return PathMatches(pattern, alias);
}

// True if the pattern's last component is the operator's name, letter by letter.
bool Names(std::string_view pattern, Operator op, int layer) {
  const std::string_view last = LastComponent(pattern);
  return (last == OperatorName(op) || last == LastComponent(OperatorPath(op, layer))) &&
         Matches(pattern, op, layer);
}

// What a target pattern selects before layers and excludes are taken away.
bool Targets(std::string_view pattern, Operator op, int layer, const NoiseSpec& spec) {
  return OnByDefault(op, spec) ? Matches(pattern, op, layer) : Names(pattern, op, layer);
}

// Calls f(op, layer) for every row the model has; layer kNoLayer comes last.
template <typename F>
void ForEachRow(const ModelShape& shape, F f) {
  for (int o = 0; o < kOperatorCount; ++o) {
    const auto op = static_cast<Operator>(o);
    for (int layer = 0; layer < shape.num_layers; ++layer) {
      if (HasRow(op, layer, shape)) f(op, layer);
    }
    if (HasRow(op, kNoLayer, shape)) f(op, kNoLayer);
  }
}

// Modules without a row that an exclude may still name.
bool MatchesOtherModule(std::string_view pattern, const ModelShape& shape) {
  if (PathMatches(pattern, "model.embed_tokens") || PathMatches(pattern, "model.norm")) return true;
  for (int layer = 0; layer < shape.num_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    if (PathMatches(pattern, absl::StrCat(prefix, "input_layernorm")) ||
        PathMatches(pattern, absl::StrCat(prefix, "post_attention_layernorm"))) {
      return true;
    }
  }
  return false;
}

void CheckPatterns(const NoiseSpec& spec, const ModelShape& shape,
                   std::vector<std::string>* mistakes) {
  for (const std::string& pattern : spec.target_modules) {
    bool any = false;
    ForEachRow(shape,
               [&](Operator op, int layer) { any = any || Targets(pattern, op, layer, spec); });
    if (!any) {
      mistakes->push_back(absl::StrFormat(
          "target_modules: '%s' selects no operator of this model (%d layers); lm_head, router, "
          "lora_a, lora_b, attention_scores and attention_values are selected by name only",
          pattern, shape.num_layers));
    }
  }
  for (const std::string& pattern : spec.exclude_modules) {
    bool any = MatchesOtherModule(pattern, shape);
    ForEachRow(shape, [&](Operator op, int layer) { any = any || Matches(pattern, op, layer); });
    if (!any) {
      mistakes->push_back(
          absl::StrFormat("exclude_modules: '%s' matches no module of this model", pattern));
    }
  }
  for (const int layer : spec.target_layers) {
    if (layer < 0 || layer >= shape.num_layers) {
      mistakes->push_back(absl::StrFormat("target_layers: %d; the model has layers 0 .. %d", layer,
                                          shape.num_layers - 1));
    }
  }
}

bool Selects(const NoiseSpec& spec, Operator op, int layer) {
  const bool by_default = spec.target_modules.empty() && OnByDefault(op, spec);
  bool targeted = by_default, named = false;
  for (const std::string& pattern : spec.target_modules) {
    targeted = targeted || Targets(pattern, op, layer, spec);
    named = named || Names(pattern, op, layer);
  }
  if (!targeted) return false;
  if (!spec.target_layers.empty()) {
    const bool in_layers = std::find(spec.target_layers.begin(), spec.target_layers.end(), layer) !=
                           spec.target_layers.end();
    if (!in_layers && !(layer < 0 && named)) return false;
  }
  return std::none_of(spec.exclude_modules.begin(), spec.exclude_modules.end(),
                      [&](const std::string& pattern) { return Matches(pattern, op, layer); });
}

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
  auto set = [&](Phase phase, Direction direction, bool on) {
    scales[static_cast<size_t>(phase)][static_cast<size_t>(direction)] =
        on ? StrengthOf(spec) : 0.0;
  };
  const bool rollout = spec.apply_during != ApplyDuring::kTraining;
  const bool training = spec.apply_during != ApplyDuring::kRollout;
  const bool forward = !spec.backward_only;
  const bool learner_forward = training && forward && spec.learner_noise != LearnerNoise::kNone;
  set(Phase::kRollout, Direction::kForward, rollout && forward);
  set(Phase::kOldLogprob, Direction::kForward, learner_forward);
  set(Phase::kRefLogprob, Direction::kForward, learner_forward && spec.ref_logprob);
  set(Phase::kTrain, Direction::kForward, learner_forward);
  set(Phase::kTrain, Direction::kBackward, training && !spec.forward_only);
  return scales;
}

}  // namespace

std::string OperatorPath(Operator op, int layer) {
  if (op == Operator::kLmHead) return "lm_head";
  if (layer < 0) return "model.norm";
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  switch (op) {
    case Operator::kQ:
    case Operator::kK:
    case Operator::kV:
    case Operator::kO:
      return absl::StrFormat("%sself_attn.%s_proj", prefix, OperatorName(op));
    case Operator::kGate:
    case Operator::kUp:
    case Operator::kDown:
      return absl::StrFormat("%smlp.%s_proj", prefix, OperatorName(op));
    case Operator::kAttentionScores:
    case Operator::kAttentionValues:
    case Operator::kSoftmax:
      return absl::StrFormat("%sself_attn.%s", prefix, OperatorName(op));
    case Operator::kSilu:
    case Operator::kRouter:
      return absl::StrFormat("%smlp.%s", prefix, OperatorName(op));
    case Operator::kInputNorm:
      return absl::StrCat(prefix, "input_layernorm");
    case Operator::kPostAttentionNorm:
      return absl::StrCat(prefix, "post_attention_layernorm");
    default:
      return absl::StrFormat("%s%s", prefix, OperatorName(op));
  }
}

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
  CheckPatterns(spec, shape, &mistakes);

  NoisePolicy policy;
  policy.spec_ = spec;
  policy.shape_ = shape;
  policy.phase_scale_ = PhaseScales(spec);
  policy.selected_.assign(static_cast<size_t>(kOperatorCount) * (shape.num_layers + 1), 0);
  bool any_row = false;
  ForEachRow(shape, [&](Operator op, int layer) {
    const int column = layer < 0 ? shape.num_layers : layer;
    const bool selected = Selects(spec, op, layer);
    policy.selected_[static_cast<size_t>(op) * (shape.num_layers + 1) + column] = selected;
    any_row = any_row || selected;
  });
  if (spec.enabled && mistakes.empty()) {
    if (!any_row) mistakes.push_back("the targets and excludes leave no operator");
    if (!policy.AnyNoise() && StrengthOf(spec) > 0.0) {
      mistakes.push_back(
          "apply_during, forward_only, backward_only and learner_noise leave no phase");
    }
  }
  if (!mistakes.empty()) return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  return policy;
}

bool NoisePolicy::Selected(Operator op, int layer) const {
  if (layer >= shape_.num_layers || selected_.empty()) return false;
  const int column = layer < 0 ? shape_.num_layers : layer;
  return selected_[static_cast<size_t>(RowOperator(op)) * (shape_.num_layers + 1) + column] != 0;
}

double NoisePolicy::Scale(Phase phase, Direction direction, Operator op, int layer) const {
  const double scale = phase_scale_[static_cast<size_t>(phase)][static_cast<size_t>(direction)];
  return scale > 0.0 && Selected(op, layer) ? scale : 0.0;
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
    for (const uint8_t selected : selected_) text.push_back(selected ? '1' : '0');
  }
  const uint64_t hash = XXH3_64bits(text.data(), text.size());
  return hash == 0 ? 1 : hash;
}

std::string NoisePolicy::Describe() const {
  if (!AnyNoise()) return "no operator error";
  std::vector<std::string> operators, phases;
  for (int o = 0; o < kOperatorCount; ++o) {
    const auto op = static_cast<Operator>(o);
    if (RowOperator(op) != op) continue;
    std::vector<int> layers;
    for (int layer = 0; layer < shape_.num_layers; ++layer) {
      if (Selected(op, layer)) layers.push_back(layer);
    }
    const bool outside = Selected(op, kNoLayer);
    if (layers.empty() && !outside) continue;
    std::string text(OperatorName(op));
    if (!layers.empty() && static_cast<int>(layers.size()) < shape_.num_layers) {
      absl::StrAppend(&text, "[", absl::StrJoin(layers, ","), "]");
    }
    operators.push_back(std::move(text));
  }
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
  return absl::StrFormat("%s on %s in %s", DescribeError(ErrorAt(scale)),
                         absl::StrJoin(operators, " "), absl::StrJoin(phases, ", "));
}

NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale) {
  TEMPER_CHECK(CheckStrength(base.error_type(), scale).ok(), "the caller validated the scale");
  TEMPER_CHECK(scale == 0.0 || !base.selected_.empty(), "base was made by Create");
  NoisePolicy policy = base;
  policy.spec_.enabled = scale > 0.0;
  policy.phase_scale_ = {};
  policy.phase_scale_[static_cast<size_t>(Phase::kEval)][0] = scale;
  return policy;
}

uint64_t NoiseId(uint64_t policy_fingerprint, uint64_t aqn_fingerprint) {
  const std::string text =
      absl::StrFormat("noise-id-1 %016x %016x", policy_fingerprint, aqn_fingerprint);
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace temper::numerics
