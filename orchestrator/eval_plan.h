#pragma once

// Which evaluations a run makes, cut into items that are leased like groups. Pure. The same
// questions and noise seeds for every version, so that versions can be compared in pairs.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace temper::orchestrator {

struct EvalPlan {
  bool enabled = true;
  uint32_t questions = 0;            // the first so many of the evaluation split
  std::vector<double> error_scales;  // ascending, no value twice
  uint32_t noise_seeds = 1;          // for scales that are not 0: seeds 1..noise_seeds
  // The evaluation under hw_error_injection, at this error scale and with seeds 1..injected_seeds.
  std::optional<double> injected_scale;
  uint32_t injected_seeds = 1;
  uint32_t questions_per_item = 64;
  uint64_t every = 0;          // also after each so many steps; 0: first and last only
  uint64_t planned_steps = 0;  // T
};

// The scales of an evaluation: those given, ascending, no value twice (values within 1e-9 are one).
std::vector<double> EvalScales(std::vector<double> given);

struct EvalDue {
  bool due = false;
  std::string reason;  // "first", "last", "every", or "disabled", "between"
};
EvalDue DecideEvalDue(const EvalPlan& plan, uint64_t version);

// One lease's worth of an evaluation.
struct EvalItemSpec {
  uint64_t version = 0;
  double error_scale = 0;
  uint64_t noise_seed = 1;  // keys error and sampling together with the question; 1 for scale 0
  uint32_t first_question = 0;
  uint32_t questions = 0;
  bool injected = false;  // under hw_error_injection too
  friend bool operator==(const EvalItemSpec&, const EvalItemSpec&) = default;
};

// All items of one version: scale by scale, the injected one last, seed by seed, question ranges
// ascending.
std::vector<EvalItemSpec> PlanEvalItems(const EvalPlan& plan, uint64_t version);

}  // namespace temper::orchestrator
