#include "orchestrator/eval_plan.h"

#include <algorithm>

namespace temper::orchestrator {

std::vector<double> EvalScales(std::vector<double> scales) {
  std::sort(scales.begin(), scales.end());
  constexpr double kSame = 1e-9;
  scales.erase(
      std::unique(scales.begin(), scales.end(), [](double a, double b) { return b - a <= kSame; }),
      scales.end());
  return scales;
}

EvalDue DecideEvalDue(const EvalPlan& plan, uint64_t version) {
  if (!plan.enabled || plan.questions == 0 || plan.error_scales.empty()) return {false, "disabled"};
  if (version == 0) return {true, "first"};
  if (version >= plan.planned_steps) return {true, "last"};
  if (plan.every > 0 && version % plan.every == 0) return {true, "every"};
  return {false, "between"};
}

std::vector<EvalItemSpec> PlanEvalItems(const EvalPlan& plan, uint64_t version) {
  std::vector<EvalItemSpec> items;
  const uint32_t step = std::max(1u, plan.questions_per_item);
  const auto add = [&](double scale, uint64_t seeds, bool injected) {
    for (uint64_t seed = 1; seed <= std::max<uint64_t>(1, seeds); ++seed) {
      for (uint64_t first = 0; first < plan.questions; first += step) {
        const uint32_t count =
            static_cast<uint32_t>(std::min<uint64_t>(step, plan.questions - first));
        items.push_back({version, scale, seed, static_cast<uint32_t>(first), count, injected});
      }
    }
  };
  for (double scale : plan.error_scales) add(scale, scale == 0.0 ? 1 : plan.noise_seeds, false);
  if (plan.injected_scale) add(*plan.injected_scale, plan.injected_seeds, true);
  return items;
}

}  // namespace temper::orchestrator
