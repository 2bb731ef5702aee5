#pragma once

// Which operator errs, how much, in which pass: one table, decided before the run starts.
//
// A row is (phase, direction, layer, operator). The configuration names rows by shorthands and path
// patterns; NoisePolicy::Create resolves them against the shape of the model, so a pattern that
// selects nothing is an error at start and not a silent no-op. A policy is immutable: thread-safe.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "numerics/operator_error.h"
#include "numerics/site.h"

namespace temper::numerics {

enum class ErrorGradient { kPathwise, kStraightThrough };
enum class NoiseKey { kFresh, kFrozen };
enum class ApplyDuring { kBoth, kRollout, kTraining };
enum class LearnerNoise { kSame, kFresh, kNone };

// The block `noisy_ops` of a configuration.
//
// Patterns are globs over the components of a module path such as
// `model.layers.2.self_attn.q_proj`: a pattern selects a module if its components match a run of
// neighbouring components of the path; `*` stands for any characters inside one component, `**` for
// any number of components. `layers.2` never selects `layers.20`. The short operator names of
// numerics/site.h ("q", "lm_head", "attention_scores", ...) stand for the last component too.
struct NoiseSpec {
  bool enabled = false;
  ErrorType error_type = ErrorType::kRelativeGaussian;
  // Parameters of the type. One that the type does not read is a mistake unless it is 0 or false.
  double error_scale = 0.0;         // s of relative and absolute Gaussian, bias and truncation
  double deadzone_threshold = 0.0;  // t of deadzone
  double fault_magnitude = 0.0;     // m of saturation and spike
  double spike_probability = 0.0;   // p of spike, (0, 1]
  bool relative = false;            // of systematic_bias
  GaussianDraw gaussian = GaussianDraw::kExact;  // of the types that draw normals
  bool forward_only = false;
  bool backward_only = false;
  ApplyDuring apply_during = ApplyDuring::kBoth;
  LearnerNoise learner_noise = LearnerNoise::kSame;
  ErrorGradient error_gradient = ErrorGradient::kPathwise;
  NoiseKey noise_key = NoiseKey::kFresh;
  uint64_t device_seed = 0;  // of `frozen` error
  // Empty: every linear of every decoder layer. Otherwise exactly what the patterns select, where
  // lm_head, router, lora_a, lora_b and the attention matmuls are selected only by a pattern whose
  // last component is their name without a wildcard.
  std::vector<std::string> target_modules;
  std::vector<std::string> exclude_modules;  // taken away from the above
  std::vector<int> target_layers;            // empty: all
  // Operators without a layer are left out by target_layers unless target_modules names them.
  bool all_ops = false;      // also softmax, silu and the norms
  bool ref_logprob = false;  // also the reference policy's pass
  bool null_arm = false;     // a strength of 0 is meant
};

// What the policy needs to know of a model.
struct ModelShape {
  int num_layers = 0;
  int num_experts = 0;  // 0: dense
  bool has_lora = false;
};

class NoisePolicy {
 public:
  // A policy without any noise.
  NoisePolicy() = default;

  // Errors: InvalidArgument with one mistake per line (a parameter out of its range, or one that
  // the error type does not read; forward_only with backward_only, a combination without a row, a
  // pattern or layer that matches nothing, a strength of 0 without null_arm).
  static absl::StatusOr<NoisePolicy> Create(const NoiseSpec& spec, const ModelShape& shape);

  // The strength of the error on a row (OperatorError: s, t or m); 0: none. layer: kNoLayer for
  // operators outside the layers. An unknown layer has none. kBackward is that of g_x and of g_W.
  // The norms of one layer share the row kRmsNorm; kInputNorm and its siblings answer for it.
  double Scale(Phase phase, Direction direction, Operator op, int layer) const;
  // The same with the type and its other parameters.
  OperatorError Error(Phase phase, Direction direction, Operator op, int layer) const;
  bool Any(Phase phase, Direction direction) const;
  bool AnyNoise() const;

  ErrorType error_type() const { return spec_.error_type; }
  // The type with the parameters of this policy, at strength `scale`.
  OperatorError ErrorAt(double scale) const;
  ErrorGradient error_gradient() const { return spec_.error_gradient; }
  NoiseKey noise_key() const { return spec_.noise_key; }
  LearnerNoise learner_noise() const { return spec_.learner_noise; }
  uint64_t device_seed() const { return spec_.device_seed; }
  int num_layers() const { return shape_.num_layers; }

  // 64-bit fingerprint of the table, error type and parameters, gradient and key rules: equal
  // policies draw equal errors. 0 is never returned.
  uint64_t Fingerprint() const;

  // One line per distinct scale and set of operators, for logs and `temper check`.
  std::string Describe() const;

 private:
  friend NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale);
  // A cell per (operator, layer or none): selected or not.
  bool Selected(Operator op, int layer) const;

  NoiseSpec spec_;
  ModelShape shape_;
  std::array<std::array<double, 2>, kPhaseCount> phase_scale_ = {};  // [phase][direction]
  std::vector<uint8_t> selected_;  // [kOperatorCount][num_layers + 1], last column: no layer
};

// The policy of an evaluation: eval, forward, with the error type of `base` at strength `scale`
// (one that CheckStrength takes; 0: clean), on the operators that `base` selects, and nothing in
// any other phase. base: from Create; with `enabled` false it
// still selects the default operators, so that a model trained clean is evaluated under the same
// error as one that was not.
NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale);

// The fingerprint that a submitted group carries and the learner compares.
uint64_t NoiseId(uint64_t policy_fingerprint, uint64_t aqn_fingerprint);

// True if the dotted `pattern` selects the module `path` as described at NoiseSpec.
bool PathMatches(std::string_view pattern, std::string_view path);

// The module path of an operator: "model.layers.3.self_attn.q_proj", "lm_head", ...
std::string OperatorPath(Operator op, int layer);

}  // namespace temper::numerics
