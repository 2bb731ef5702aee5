#pragma once

// Which rows of the noise table a block of the configuration names: operators and layers by path
// patterns, phases by shorthands. `noisy_ops` and `hw_error_injection` select alike. Pure;
// thread-safe.

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "numerics/site.h"

namespace temper::numerics {

enum class ApplyDuring { kBoth, kRollout, kTraining };
enum class LearnerNoise { kSame, kFresh, kNone };

// What has to be known of a model.
struct ModelShape {
  int num_layers = 0;
  int num_experts = 0;        // 0: dense
  bool qk_norm = false;       // norms over the heads of q and k
  std::set<int> lora_layers;  // layers with an adapter; not empty: all other weights are frozen
};

// Patterns are globs over the components of a module path such as
// `model.layers.2.self_attn.q_proj`: a pattern selects a module if its components match a run of
// neighbouring components of the path; `*` stands for any characters inside one component, `**` for
// any number of components. `layers.2` never selects `layers.20`. The short operator names of
// numerics/site.h ("q", "lm_head", "attention_scores", ...) stand for the last component too.
struct RowSelectionSpec {
  // Empty: every linear of every decoder layer. Otherwise exactly what the patterns select, where
  // lm_head, router, lora_a, lora_b and the attention matmuls are selected only by a pattern whose
  // last component is their name without a wildcard.
  std::vector<std::string> target_modules;
  std::vector<std::string> exclude_modules;  // taken away from the above
  std::vector<int> target_layers;            // empty: all
  // Operators without a layer are left out by target_layers unless target_modules names them.
  bool all_ops = false;  // also softmax, silu and the norms
};

// Immutable.
class RowSelection {
 public:
  // Selects nothing.
  RowSelection() = default;

  // Adds a line to `mistakes` for every pattern and layer that matches nothing. The shape has
  // 1 .. kMaxSiteIndex + 1 layers.
  static RowSelection Create(const RowSelectionSpec& spec, const ModelShape& shape,
                             std::vector<std::string>* mistakes);

  // layer: kNoLayer for operators outside the layers; an unknown layer is not selected. The norms
  // of one layer share the row kRmsNorm; kInputNorm and its siblings answer for it.
  bool Contains(Operator op, int layer) const;
  bool empty() const;

  // "q k[0,2] lm_head": the operators, with their layers where these are not all.
  std::string Describe() const;
  // A character per cell, for fingerprints.
  std::string Cells() const;

 private:
  int num_layers_ = 0;
  std::vector<uint8_t> selected_;  // [kOperatorCount][num_layers + 1], last column: no layer
};

// The phases whose forward pass errs, by Phase. learner_noise `none` leaves out the learner's.
std::array<bool, kPhaseCount> ForwardPhases(ApplyDuring apply_during, LearnerNoise learner_noise);

// True if the dotted `pattern` selects the module `path` as described above.
bool PathMatches(std::string_view pattern, std::string_view path);

// True if `pattern` selects the operator's module, by its path or by the operator's short name.
bool PatternSelects(std::string_view pattern, Operator op, int layer);

// The same, where the pattern's last component is the operator's name, letter by letter.
bool PatternNames(std::string_view pattern, Operator op, int layer);

// The module path of an operator: "model.layers.3.self_attn.q_proj", "lm_head", ...
std::string OperatorPath(Operator op, int layer);

}  // namespace temper::numerics
