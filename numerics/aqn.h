#pragma once

// Adaptive Quantization Noise: Gaussian noise on the weights of RMSNorm while the policy samples,
//   gamma'[c] = gamma[c] + sigma(t) * m_layer * n[c]      (sigma_mode absolute)
//   gamma'[c] = gamma[c] + sigma(t) * m_layer * RMS(gamma) * n[c]   (relative_to_rms)
// Here: when, where and how strong. The draw itself: numerics/aqn_draw.h. Formulas and sources:
// docs/numerics.md, "AQN". All functions are pure and thread-safe.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "numerics/noise_policy.h"
#include "numerics/site.h"

namespace temper::numerics {

enum class AqnSchedule { kNone, kConstant, kGlobal, kEpochAware, kEpochRestart };
enum class SigmaMode { kAbsolute, kRelativeToRms };
// What shares one draw: all that a policy version samples, a group of it, or a worker's part of it.
enum class AqnDrawScope { kPerVersion, kPerGroup, kPerWorker };
enum class LayerPreset { kNone, kTargeted, kVariable, kZone, kDepthHeuristic };

// How sigma differs between layers. Not enabled: 1 everywhere. A preset and a map exclude each
// other.
struct LayerSigmaConfig {
  bool enabled = false;
  double default_multiplier = 1.0;          // layers not in the map, and norms without a layer
  std::map<int, double> layer_multipliers;  // layer -> m >= 0; 0 leaves the layer clean
  LayerPreset preset = LayerPreset::kNone;
};

// The whole of AQN for a run; resolved: every number is known before the run starts.
struct AqnPlan {
  bool enabled = false;
  AqnSchedule schedule = AqnSchedule::kGlobal;
  double sigma_start = 0.0;
  double sigma_end = 0.0;        // > 0 unless constant or none
  int64_t num_stages = 10;       // K of `global`
  int64_t stages_per_epoch = 5;  // S of the epoch schedules
  int64_t total_steps = 0;       // T, planned steps of the run, > 0
  int64_t epochs = 1;            // E
  int64_t steps_per_epoch = 0;   // P; epoch schedules only, > 0
  SigmaMode sigma_mode = SigmaMode::kAbsolute;
  AqnDrawScope draw = AqnDrawScope::kPerVersion;
  bool in_learner = false;  // also in the learner's forward passes
  bool final_norm = true;   // also the norm before lm_head
  bool norms = true;        // input, post-attention and final norms
  bool linears = false;     // the linears of the decoder
  // Patterns as NoiseSpec's. Empty: the above. Otherwise what of the above they select, and norms
  // of heads (q_norm, k_norm) and linears that they name.
  std::vector<std::string> target_modules;
  bool force = false;  // also noise that CheckLinearShare refuses (numerics/aqn_draw.h)
  LayerSigmaConfig layers;
};

// Sigma for rollouts of the policy after t commits (t = 0: the first rollouts). t < 0 is taken as
// 0, t >= T as T - 1. 0 where the plan is disabled. A plan that ValidateAqn accepts, or one without
// steps (T = 0, a run that only evaluates).
double Sigma(const AqnPlan& plan, int64_t t);

// m for a layer of a model with num_layers, at step t (only `zone` reads t); kNoLayer stands for
// the final norm, whose m is 0 where the plan leaves it out.
double LayerMultiplier(const AqnPlan& plan, int layer, int num_layers, int64_t t);

// A weight that AQN may act on: of a norm, or of a linear of the decoder.
struct AqnTarget {
  int layer = kNoLayer;
  Operator op = Operator::kFinalNorm;
  friend bool operator==(const AqnTarget&, const AqnTarget&) = default;
};

// The norms of a model in its order: in every layer the input norm, those of q and k where it has
// them, and the post-attention norm; then the final one.
std::vector<AqnTarget> AqnNorms(const ModelShape& shape);
// The linears of its decoder: q, k, v, o, gate, up, down of every layer.
std::vector<AqnTarget> AqnLinears(const ModelShape& shape);
// Whether an operator's weight is that of a norm (q_norm and k_norm are) or of a decoder linear.
bool IsNorm(Operator op);
// Whether the plan selects a weight by its kind and its module path; layers have their say in
// AqnMultiplier.
bool IsAqnSelected(const AqnPlan& plan, const AqnTarget& target);
// The multiplier of one weight at step t: LayerMultiplier where the plan selects it, else 0.
double AqnMultiplier(const AqnPlan& plan, const AqnTarget& target, int num_layers, int64_t t);
// The weights of a model whose multiplier is above 0 at some step: norms, then linears.
std::vector<AqnTarget> AqnTargets(const AqnPlan& plan, const ModelShape& shape);
// "layers.3.input_norm", "layers.3.q", "final_norm".
std::string AqnTargetName(const AqnTarget& target);

// All mistakes at once: ranges, schedule without its numbers, layers the model does not have, a
// preset that selects no layer, a pattern that selects no weight of it, a sigma that is 0 at every
// step (unless null_arm), a draw per group of linears, whose weights would have to be packed for
// every group. InvalidArgument with one mistake per line.
absl::Status ValidateAqn(const AqnPlan& plan, const ModelShape& shape, bool null_arm = false);

// 64-bit fingerprint of everything in the plan that changes a draw or its size.
uint64_t Fingerprint(const AqnPlan& plan);

}  // namespace temper::numerics
