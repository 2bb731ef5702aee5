#include "numerics/injection_policy.h"

#include <xxhash.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/base/random_key.h"

namespace temper::numerics {
namespace {

constexpr std::array<std::string_view, 4> kPointNames = {"input", "output", "weight", "both"};
constexpr uint64_t kEvaluationSubscope = ~uint64_t{0};

bool HasWeight(InjectionPoint point) {
  return point == InjectionPoint::kWeight || point == InjectionPoint::kBoth;
}

// What is perturbed row by row, or nullopt.
std::optional<TensorRole> RowRole(InjectionPoint point) {
  if (point == InjectionPoint::kWeight) return std::nullopt;
  return point == InjectionPoint::kOutput ? TensorRole::kInjectedOutput : TensorRole::kInputOperand;
}

void CheckError(const InjectionSpec& spec, std::vector<std::string>* mistakes) {
  const absl::Status in_range = CheckStrength(spec.error.type, spec.error.strength);
  if (!in_range.ok()) mistakes->emplace_back(in_range.message());
  const double p = spec.error.spike_probability;
  if (spec.error.type == ErrorType::kSpike && !(p >= 0x1p-32 && p <= 1.0)) {
    mistakes->push_back(absl::StrFormat("spike_probability %g is outside 2^-32 .. 1", p));
  }
  if (spec.enabled && spec.error.strength == 0.0f && !spec.null_arm) {
    mistakes->push_back(absl::StrFormat("%s is 0; say null_arm: true if that is meant",
                                        StrengthName(spec.error.type)));
  }
}

TensorError ErrorOf(const InjectionSpec& spec, Operand operand,
                    std::vector<std::string>* mistakes) {
  if (!spec.format.has_value()) return TensorError(spec.error);
  FormatSpec format = *spec.format;
  // Tiles are of weights: beside them the inputs have the format's own blocks.
  if (operand == Operand::kActivation && spec.point == InjectionPoint::kBoth) {
    format.block_2d = false;
  }
  absl::StatusOr<TensorError> error = TensorError::OfFormat(format, operand);
  if (error.ok()) return *std::move(error);
  mistakes->emplace_back(error.status().message());
  return {};
}

absl::Status StatusOf(std::vector<std::string> mistakes) {
  if (mistakes.empty()) return absl::OkStatus();
  for (std::string& line : mistakes) line = absl::StrCat("trainer.hw_error_injection: ", line);
  return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
}

uint64_t Subscope(const InjectionDraw& draw) {
  if (draw.phase == Phase::kEval) return kEvaluationSubscope;
  return draw.fresh ? draw.optimizer_step * 8 + static_cast<uint64_t>(draw.phase) + 1 : 0;
}

}  // namespace

std::string_view InjectionPointName(InjectionPoint point) {
  return kPointNames.at(static_cast<size_t>(point));
}

std::optional<InjectionPoint> InjectionPointFromName(std::string_view name) {
  const auto it = std::find(kPointNames.begin(), kPointNames.end(), name);
  if (it == kPointNames.end()) return std::nullopt;
  return static_cast<InjectionPoint>(it - kPointNames.begin());
}

InjectionPolicy::InjectionPolicy(const InjectionSpec& spec, std::vector<std::string>* mistakes)
    : enabled_(spec.enabled),
      point_(spec.point),
      name_(spec.Name()),
      fresh_(spec.learner_noise == LearnerNoise::kFresh) {
  if (!spec.format.has_value()) CheckError(spec, mistakes);
  if (HasWeight(spec.point)) weight_ = ErrorOf(spec, Operand::kWeight, mistakes);
  if (RowRole(spec.point)) rows_ = ErrorOf(spec, Operand::kActivation, mistakes);
  if (!spec.enabled) return;
  phases_ = ForwardPhases(spec.apply_during, spec.learner_noise);
  if (std::count(phases_.begin(), phases_.end(), true) == 0) {
    mistakes->emplace_back("apply_during and learner_noise leave no phase");
  }
}

std::string InjectionSpec::Name() const {
  return absl::StrFormat("%s %s", format ? DescribeFormat(*format) : DescribeError(error),
                         InjectionPointName(point));
}

absl::Status InjectionPolicy::Check(const InjectionSpec& spec) {
  std::vector<std::string> mistakes;
  const InjectionPolicy policy(spec, &mistakes);
  return StatusOf(std::move(mistakes));
}

absl::StatusOr<InjectionPolicy> InjectionPolicy::Create(const InjectionSpec& spec,
                                                        const ModelShape& shape) {
  std::vector<std::string> mistakes;
  InjectionPolicy policy(spec, &mistakes);
  policy.selection_ = RowSelection::Create({.target_modules = spec.target_modules,
                                            .exclude_modules = spec.exclude_modules,
                                            .target_layers = spec.target_layers},
                                           shape, &mistakes);
  for (const int layer : shape.lora_layers) {
    if (policy.selection_.Contains(Operator::kLoraA, layer) ||
        policy.selection_.Contains(Operator::kLoraB, layer)) {
      mistakes.emplace_back(
          "target_modules: lora_a and lora_b take no injection; it acts on the base's linears");
      break;
    }
  }
  if (spec.enabled && mistakes.empty() && policy.selection_.empty()) {
    mistakes.emplace_back("the targets and excludes leave no operator");
  }
  const absl::Status status = StatusOf(std::move(mistakes));
  if (!status.ok()) return status;
  return policy;
}

bool InjectionPolicy::Acts(Phase phase, Direction direction, TensorRole role) const {
  if (!enabled_ || !phases_[static_cast<size_t>(phase)]) return false;
  if (role == TensorRole::kWeightOperand ? !weight_.acts() : role != RowRole(point_)) return false;
  if (role != TensorRole::kWeightOperand && !rows_.acts()) return false;
  return direction == Direction::kForward ||
         (phase == Phase::kTrain && role != TensorRole::kInjectedOutput);
}

bool InjectionPolicy::Any(Phase phase, Direction direction) const {
  return Acts(phase, direction, TensorRole::kWeightOperand) ||
         Acts(phase, direction, TensorRole::kInputOperand) ||
         Acts(phase, direction, TensorRole::kInjectedOutput);
}

const TensorError& InjectionPolicy::OfRole(TensorRole role) const {
  if (role == TensorRole::kWeightOperand) return weight_;
  return role == RowRole(point_) ? rows_ : none_;
}

const TensorError& InjectionPolicy::Error(Phase phase, Direction direction, TensorRole role,
                                          Operator op, int layer) const {
  const bool acts = Acts(phase, direction, role) && selection_.Contains(op, layer);
  return acts ? OfRole(role) : none_;
}

uint64_t InjectionPolicy::RowKey(const InjectionDraw& draw, uint64_t scope) const {
  if (rows_.rounds_stochastically()) {
    return base::StochasticRoundingKey(draw.seed, scope, Subscope(draw));
  }
  if (draw.phase == Phase::kEval) return base::EvaluationErrorKey(draw.seed, scope);
  if (!draw.fresh) return base::ForwardErrorKey(draw.seed, scope);
  return base::FreshForwardErrorKey(draw.seed, scope, draw.optimizer_step,
                                    static_cast<uint32_t>(draw.phase));
}

uint64_t InjectionPolicy::WeightKey(const InjectionDraw& draw, uint64_t version) const {
  if (!weight_.draws()) return 0;
  const uint64_t scope = draw.phase == Phase::kEval ? 0 : version;
  if (weight_.rounds_stochastically()) {
    return base::StochasticRoundingKey(draw.seed, scope, Subscope(draw));
  }
  return base::WeightErrorKey(draw.seed, scope, Subscope(draw));
}

InjectionPolicy InjectionPolicy::ForEvaluation() const {
  InjectionPolicy policy = *this;
  policy.phases_ = {};
  policy.phases_[static_cast<size_t>(Phase::kEval)] = true;
  return policy;
}

std::string InjectionPolicy::ActionText() const {
  std::string text = name_;
  const TensorError& error = HasWeight(point_) ? weight_ : rows_;
  if (!error.is_format()) {
    absl::StrAppendFormat(&text, " %a", static_cast<double>(error.error().strength));
    if (error.error().type == ErrorType::kSpike) {
      absl::StrAppendFormat(&text, " %a", error.error().spike_probability);
    }
  }
  return absl::StrCat(text, " ", selection_.Cells());
}

uint64_t InjectionPolicy::WeightsId(uint64_t key) const {
  const std::string text = absl::StrFormat("%s %016x", ActionText(), key);
  return XXH3_64bits(text.data(), text.size());
}

std::string InjectionPolicy::FingerprintText() const {
  if (!enabled_) return "";
  std::string text = absl::StrFormat(" injection fresh=%d phases=", fresh_);
  for (const bool on : phases_) text.push_back(on ? '1' : '0');
  return absl::StrCat(text, " ", ActionText());
}

std::string InjectionPolicy::Describe() const {
  if (!enabled_) return "none";
  constexpr std::array<std::string_view, 4> kOn = {"inputs", "results", "weights",
                                                   "inputs and weights"};
  std::vector<std::string> phases;
  for (int p = 0; p < kPhaseCount; ++p) {
    if (phases_[static_cast<size_t>(p)]) phases.emplace_back(PhaseName(static_cast<Phase>(p)));
  }
  return absl::StrFormat("%s on %s of %s in %s", (HasWeight(point_) ? weight_ : rows_).Describe(),
                         kOn[static_cast<size_t>(point_)], selection_.Describe(),
                         absl::StrJoin(phases, ", "));
}

}  // namespace temper::numerics
