#pragma once

// `hw_error_injection`: errors of a linear's operands or result as such, beside those that
// `noisy_ops` gives the operator.
//
//   input    y = op(E(x))                 weight   y = x E(W)^T
//   output   y' = E(op(x))                both     y = E(x) E(W)^T
//
// E rounds to a number format (MXFP4, NVFP4, FP8) or is an error of numerics/operator_error.h. Rows
// of x and y err token by token; W once per weight version, and the parameters are never edited.
// Everything at once: y = E(e(x^ W^^T)) + b. A policy is immutable: thread-safe.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "numerics/formats/number_format.h"
#include "numerics/operator_error.h"
#include "numerics/row_selection.h"
#include "numerics/site.h"
#include "numerics/tensor_error.h"

namespace temper::numerics {

enum class InjectionPoint { kInput, kOutput, kWeight, kBoth };

// The block of a configuration. Its rows: numerics/row_selection.h.
struct InjectionSpec {
  bool enabled = false;
  std::optional<FormatSpec> format;  // absent: `error`. block_2d is of its weights, where `both`
  OperatorError error;
  InjectionPoint point = InjectionPoint::kWeight;
  ApplyDuring apply_during = ApplyDuring::kBoth;
  LearnerNoise learner_noise = LearnerNoise::kSame;
  std::vector<std::string> target_modules;
  std::vector<std::string> exclude_modules;
  std::vector<int> target_layers;
  bool null_arm = false;  // an error of strength 0 is meant

  // What it does depends on a draw.
  bool draws() const { return format ? format->stochastic_rounding : error.random(); }
  // "mxfp4 weight", for tables.
  std::string Name() const;
};

// Names the draws of a pass.
struct InjectionDraw {
  Phase phase = Phase::kRollout;
  uint64_t seed = 0;   // of the run; in an evaluation the noise seed
  bool fresh = false;  // the learner's own draws, of the optimizer step and phase
  uint64_t optimizer_step = 0;
};

class InjectionPolicy final {
 public:
  // No injection.
  InjectionPolicy() = default;

  // Errors: InvalidArgument with one mistake per line (a format that its operand cannot have, a
  // strength out of range or 0 without null_arm, a pattern or layer that matches nothing, nothing
  // left to act on, no phase). shape: as NoisePolicy::Create has checked it.
  static absl::StatusOr<InjectionPolicy> Create(const InjectionSpec& spec, const ModelShape& shape);
  // Those of these mistakes that need no model.
  static absl::Status Check(const InjectionSpec& spec);

  // The block is on, perhaps with strength 0.
  bool enabled() const { return enabled_; }
  // Some row of (phase, direction) errs. Backward: the operands of train, as the products of the
  // gradients read them.
  bool Any(Phase phase, Direction direction) const;
  // The error of a row; none where it has none. role: kInputOperand, kWeightOperand or
  // kInjectedOutput; another has none. A result errs forward only.
  const TensorError& Error(Phase phase, Direction direction, TensorRole role, Operator op,
                           int layer) const;
  // The block names the operator, at whatever point.
  bool Selects(Operator op, int layer) const { return selection_.Contains(op, layer); }
  // What acts on a role wherever the block acts.
  const TensorError& OfRole(TensorRole role) const;

  // The key of the draws of a group's rows. scope: group_index, in an evaluation the question.
  uint64_t RowKey(const InjectionDraw& draw, uint64_t scope) const;
  // The key of a version's weights; 0 where nothing is drawn. In an evaluation the version does not
  // enter, so that all versions share their draws.
  uint64_t WeightKey(const InjectionDraw& draw, uint64_t version) const;

  // Names weights that this block perturbed under `key`: equal for equal operators, points, errors
  // and keys, whatever the phase.
  uint64_t WeightsId(uint64_t key) const;

  // This block in an evaluation, and nowhere else.
  InjectionPolicy ForEvaluation() const;

  // Part of NoisePolicy::Fingerprint; empty where the block is off.
  std::string FingerprintText() const;
  // "mxfp4 on weights of q k v in rollout, train".
  std::string Describe() const;

 private:
  // All but the selection.
  InjectionPolicy(const InjectionSpec& spec, std::vector<std::string>* mistakes);
  bool Acts(Phase phase, Direction direction, TensorRole role) const;
  std::string ActionText() const;  // what it does where it acts, for fingerprints

  bool enabled_ = false;
  InjectionPoint point_ = InjectionPoint::kWeight;
  std::string name_;    // InjectionSpec::Name
  bool fresh_ = false;  // the learner's draws are its own; enters the fingerprint
  std::array<bool, kPhaseCount> phases_ = {};
  RowSelection selection_;
  TensorError weight_;  // of weights
  TensorError rows_;    // of inputs and results
  TensorError none_;
};

// "input", "output", "weight", "both".
std::string_view InjectionPointName(InjectionPoint point);
std::optional<InjectionPoint> InjectionPointFromName(std::string_view name);

}  // namespace temper::numerics
