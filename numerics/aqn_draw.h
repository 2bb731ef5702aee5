#pragma once

// A draw of AQN: the noise of one model's weights, keyed by what shares it (AqnDrawScope). The
// clean weights are never changed. All functions are pure and thread-safe.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "numerics/aqn.h"
#include "numerics/simd_path.h"

namespace temper::numerics {

// The AQN that one policy version samples under. plan null or sigma 0: none. Copies point to the
// same plan, which outlives them.
struct VersionAqn {
  const AqnPlan* plan = nullptr;
  double sigma = 0.0;  // before multipliers
  int64_t step = 0;    // t of the schedule
  uint64_t run_seed = 0;
  uint64_t policy_version = 0;

  bool acts() const { return plan != nullptr && sigma != 0.0; }
  // The key of the draw that a group's tokens are sampled under. group_index and worker (AqnWorker)
  // are read where the plan's scope says so.
  uint64_t Key(uint64_t group_index, uint64_t worker) const;
};

// A worker in the key of its draws: XXH3-64 of its member id, so that one that is restarted under
// its name draws what it drew, and the learner can re-create it from the name in a submitted group.
uint64_t AqnWorker(std::string_view member_id);

// What was done to a model's weights; a worker acknowledges it, the orchestrator compares.
struct AqnReport {
  double sigma = 0.0;         // Sigma(plan, t), before multipliers
  int64_t norms_touched = 0;  // weights (of norms, and of linears where the plan says so) of which
                              // at least one number changed
  double max_abs_change = 0.0;  // largest |gamma' - gamma|
  uint64_t checksum = 0;  // XOR over weights of XXH3-64(gamma' as little-endian floats, seed site)
  friend bool operator==(const AqnReport&, const AqnReport&) = default;
};

// One draw for a whole model.
struct AqnDraw {
  uint64_t key = 0;    // VersionAqn::Key
  double sigma = 0.0;  // Sigma(plan, t)
  SigmaMode mode = SigmaMode::kAbsolute;
};

// perturbed = gamma + sigma * multiplier * [RMS(gamma)] * n, element = channel (of a linear: flat
// index), in float32: fma(scale, n, gamma) with scale rounded to float once. gamma and perturbed:
// [channels], may be the same memory only for scratch use. report: may be null; the weight is added
// to it.
void ApplyAqn(std::span<const float> gamma, std::span<float> perturbed, const AqnTarget& target,
              const AqnDraw& draw, double multiplier, AqnReport* report,
              SimdPath path = BestSimdPath());

// The site of a weight: its operator with TensorRole::kWeightOperand.
uint32_t AqnSite(const AqnTarget& target);

// Root mean square of a weight, accumulated in double; 0 for none.
double RootMeanSquare(std::span<const float> values);

// The largest noise of one weight over the run, as a share of its root mean square `rms`: the
// largest sigma times multiplier, over rms where sigma_mode is absolute. 0 for rms 0.
double LargestAqnShare(const AqnPlan& plan, const AqnTarget& target, int num_layers, double rms);

// On linears noise above this share destroyed a policy in trials (docs/numerics.md, "AQN").
inline constexpr double kMostLinearShare = 0.10;
// InvalidArgument, naming the weight and both numbers, for a linear whose LargestAqnShare is above
// kMostLinearShare in a plan without `force`.
absl::Status CheckLinearShare(const AqnPlan& plan, const AqnTarget& target, int num_layers,
                              double rms);

}  // namespace temper::numerics
