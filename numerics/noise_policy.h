#pragma once

// Which operator errs, how much, in which pass: one table, decided before the run starts.
//
// A row is (phase, direction, layer, operator). The configuration names rows by shorthands and path
// patterns; NoisePolicy::Create resolves them against the shape of the model, so a pattern that
// selects nothing is an error at start and not a silent no-op. A policy is immutable: thread-safe.

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "numerics/injection_policy.h"
#include "numerics/operator_error.h"
#include "numerics/row_selection.h"
#include "numerics/site.h"

namespace temper::numerics {

enum class ErrorGradient { kPathwise, kStraightThrough };
enum class NoiseKey { kFresh, kFrozen };

// The block `noisy_ops` of a configuration. Its rows: numerics/row_selection.h.
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
  std::vector<std::string> target_modules;
  std::vector<std::string> exclude_modules;
  std::vector<int> target_layers;
  bool all_ops = false;      // also softmax, silu and the norms
  bool ref_logprob = false;  // also the reference policy's pass
  bool null_arm = false;     // a strength of 0 is meant
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
  // Whether the backward pass makes a g_W of the linear: with adapters of theirs alone.
  bool HasWeightGradient(Operator op) const {
    return shape_.lora_layers.empty() || op == Operator::kLoraA || op == Operator::kLoraB;
  }

  // What `hw_error_injection` does to operands and results of the same operators; nothing by
  // default. Scale, Error, Any and Describe are of `noisy_ops` alone.
  const InjectionPolicy& injection() const { return injection_; }
  void set_injection(InjectionPolicy injection) { injection_ = std::move(injection); }

  // 64-bit fingerprint of the table, error type and parameters, gradient and key rules, and of the
  // injection: equal policies draw equal errors. 0 is never returned.
  uint64_t Fingerprint() const;

  // One line per distinct scale and set of operators, for logs and `temper check`.
  std::string Describe() const;

 private:
  friend NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale, bool injected);

  NoiseSpec spec_;
  ModelShape shape_;
  std::array<std::array<double, 2>, kPhaseCount> phase_scale_ = {};  // [phase][direction]
  RowSelection selection_;
  InjectionPolicy injection_;
};

// The policy of an evaluation: eval, forward, with the error type of `base` at strength `scale`
// (one that CheckStrength takes; 0: clean), on the operators that `base` selects, and nothing in
// any other phase. base: from Create; with `enabled` false it
// still selects the default operators, so that a model trained clean is evaluated under the same
// error as one that was not. injected: also under the injection of `base`, which has one then.
NoisePolicy EvaluationPolicy(const NoisePolicy& base, double scale, bool injected = false);

// The fingerprint that a submitted group carries and the learner compares.
uint64_t NoiseId(uint64_t policy_fingerprint, uint64_t aqn_fingerprint);

}  // namespace temper::numerics
