#pragma once

// Adaptive Quantization Noise: Gaussian noise on the weights of RMSNorm while the policy samples,
//   gamma'[c] = gamma[c] + sigma(t) * m_layer * n[c]      (sigma_mode absolute)
//   gamma'[c] = gamma[c] + sigma(t) * m_layer * RMS(gamma) * n[c]   (relative_to_rms)
// with one draw per channel and policy version. The clean gamma is never changed. Formulas and
// sources: docs/numerics.md, "AQN". All functions are pure and thread-safe.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "numerics/simd_path.h"
#include "numerics/site.h"

namespace temper::numerics {

enum class AqnSchedule { kNone, kConstant, kGlobal, kEpochAware, kEpochRestart };
enum class SigmaMode { kAbsolute, kRelativeToRms };
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
  LayerSigmaConfig layers;
};

// Sigma for rollouts of the policy after t commits (t = 0: the first rollouts). t < 0 is taken as
// 0, t >= T as T - 1. 0 where the plan is disabled. A plan that ValidateAqn accepts, or one without
// steps (T = 0, a run that only evaluates).
double Sigma(const AqnPlan& plan, int64_t t);

// m for a layer of a model with num_layers, at step t (only `zone` reads t); kNoLayer stands for
// the final norm, whose m is 0 where the plan leaves it out.
double LayerMultiplier(const AqnPlan& plan, int layer, int num_layers, int64_t t);

// All mistakes at once: ranges, schedule without its numbers, layers the model does not have, a
// preset that selects no layer, a sigma that is 0 at every step (unless null_arm). InvalidArgument
// with one mistake per line.
absl::Status ValidateAqn(const AqnPlan& plan, int num_layers, bool null_arm = false);

// The norms AQN may act on: two per layer and the final one, 2 L + 1, in the model's order.
enum class NormKind { kInputNorm, kPostAttentionNorm, kFinalNorm };
struct NormId {
  int layer = kNoLayer;
  NormKind kind = NormKind::kFinalNorm;
  friend bool operator==(const NormId&, const NormId&) = default;
};
std::vector<NormId> AqnNorms(int num_layers);
// "layers.3.input_norm", "layers.3.post_attention_norm", "final_norm".
std::string NormName(const NormId& norm);
// The site of a norm's weight: its operator with TensorRole::kWeightOperand.
uint32_t NormSite(const NormId& norm);

// What was done to a model's norms; a worker acknowledges it, the learner compares.
struct AqnReport {
  double sigma = 0.0;           // Sigma(plan, t), before multipliers
  int64_t norms_touched = 0;    // norms with at least one changed channel
  double max_abs_change = 0.0;  // largest |gamma' - gamma|
  uint64_t checksum = 0;  // XOR over norms of XXH3-64(gamma' as little-endian floats, seed site)
  friend bool operator==(const AqnReport&, const AqnReport&) = default;
};

// One draw for a whole model.
struct AqnDraw {
  uint64_t key = 0;    // base::AqnKey(run seed, policy_version)
  double sigma = 0.0;  // Sigma(plan, t)
  SigmaMode mode = SigmaMode::kAbsolute;
};

// perturbed = gamma + sigma * multiplier * [RMS(gamma)] * n, element = channel, in float32:
// fma(scale, n, gamma) with scale rounded to float once. gamma and perturbed: [channels], may be
// the same memory only for scratch use. report: may be null; the norm is added to it.
void ApplyAqn(std::span<const float> gamma, std::span<float> perturbed, const NormId& norm,
              const AqnDraw& draw, double multiplier, AqnReport* report,
              SimdPath path = BestSimdPath());

// Root mean square of a weight, accumulated in double; 0 for none.
double RootMeanSquare(std::span<const float> values);

// 64-bit fingerprint of everything in the plan that changes a draw or its size.
uint64_t Fingerprint(const AqnPlan& plan);

}  // namespace temper::numerics
