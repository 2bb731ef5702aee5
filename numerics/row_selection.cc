#include "numerics/row_selection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace temper::numerics {
namespace {

// The row an operator is looked up in: the norms share one.
Operator RowOperator(Operator op) {
  switch (op) {
    case Operator::kInputNorm:
    case Operator::kPostAttentionNorm:
    case Operator::kFinalNorm:
    case Operator::kQNorm:
    case Operator::kKNorm:
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
      return shape.lora_layers.contains(layer);
    case Operator::kInputNorm:
    case Operator::kPostAttentionNorm:
    case Operator::kFinalNorm:
    case Operator::kQNorm:
    case Operator::kKNorm:
      return false;  // rows of kRmsNorm
    default:
      return layer >= 0;
  }
}

// Selected without being named: the decoder's linears and, with all_ops, what is not a matmul.
bool OnByDefault(Operator op, const RowSelectionSpec& spec) {
  if (op <= Operator::kDown) return true;
  return spec.all_ops &&
         (op == Operator::kSoftmax || op == Operator::kSilu || op == Operator::kRmsNorm);
}

// What a target pattern selects before layers and excludes are taken away.
bool Targets(std::string_view pattern, Operator op, int layer, const RowSelectionSpec& spec) {
  return OnByDefault(op, spec) ? PatternSelects(pattern, op, layer)
                               : PatternNames(pattern, op, layer);
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

void CheckPatterns(const RowSelectionSpec& spec, const ModelShape& shape,
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
    ForEachRow(shape,
               [&](Operator op, int layer) { any = any || PatternSelects(pattern, op, layer); });
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

bool Selects(const RowSelectionSpec& spec, Operator op, int layer) {
  const bool by_default = spec.target_modules.empty() && OnByDefault(op, spec);
  bool targeted = by_default, named = false;
  for (const std::string& pattern : spec.target_modules) {
    targeted = targeted || Targets(pattern, op, layer, spec);
    named = named || PatternNames(pattern, op, layer);
  }
  if (!targeted) return false;
  if (!spec.target_layers.empty()) {
    const bool in_layers = std::find(spec.target_layers.begin(), spec.target_layers.end(), layer) !=
                           spec.target_layers.end();
    if (!in_layers && !(layer < 0 && named)) return false;
  }
  return std::none_of(
      spec.exclude_modules.begin(), spec.exclude_modules.end(),
      [&](const std::string& pattern) { return PatternSelects(pattern, op, layer); });
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
    case Operator::kQNorm:
    case Operator::kKNorm:
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

RowSelection RowSelection::Create(const RowSelectionSpec& spec, const ModelShape& shape,
                                  std::vector<std::string>* mistakes) {
  CheckPatterns(spec, shape, mistakes);
  RowSelection selection;
  selection.num_layers_ = shape.num_layers;
  selection.selected_.assign(static_cast<size_t>(kOperatorCount) * (shape.num_layers + 1), 0);
  ForEachRow(shape, [&](Operator op, int layer) {
    const int column = layer < 0 ? shape.num_layers : layer;
    selection.selected_[static_cast<size_t>(op) * (shape.num_layers + 1) + column] =
        Selects(spec, op, layer);
  });
  return selection;
}

bool RowSelection::Contains(Operator op, int layer) const {
  if (layer >= num_layers_ || selected_.empty()) return false;
  const int column = layer < 0 ? num_layers_ : layer;
  return selected_[static_cast<size_t>(RowOperator(op)) * (num_layers_ + 1) + column] != 0;
}

bool RowSelection::empty() const {
  return std::find(selected_.begin(), selected_.end(), 1) == selected_.end();
}

std::string RowSelection::Describe() const {
  std::vector<std::string> operators;
  for (int o = 0; o < kOperatorCount; ++o) {
    const auto op = static_cast<Operator>(o);
    if (RowOperator(op) != op) continue;
    std::vector<int> layers;
    for (int layer = 0; layer < num_layers_; ++layer) {
      if (Contains(op, layer)) layers.push_back(layer);
    }
    if (layers.empty() && !Contains(op, kNoLayer)) continue;
    std::string text(OperatorName(op));
    if (!layers.empty() && static_cast<int>(layers.size()) < num_layers_) {
      absl::StrAppend(&text, "[", absl::StrJoin(layers, ","), "]");
    }
    operators.push_back(std::move(text));
  }
  return absl::StrJoin(operators, " ");
}

std::string RowSelection::Cells() const {
  std::string cells;
  for (const uint8_t selected : selected_) cells.push_back(selected ? '1' : '0');
  return cells;
}

std::array<bool, kPhaseCount> ForwardPhases(ApplyDuring apply_during, LearnerNoise learner_noise) {
  std::array<bool, kPhaseCount> phases = {};
  const bool learner =
      apply_during != ApplyDuring::kRollout && learner_noise != LearnerNoise::kNone;
  phases[static_cast<size_t>(Phase::kRollout)] = apply_during != ApplyDuring::kTraining;
  phases[static_cast<size_t>(Phase::kOldLogprob)] = learner;
  phases[static_cast<size_t>(Phase::kTrain)] = learner;
  return phases;
}

}  // namespace temper::numerics
