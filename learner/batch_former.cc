#include "learner/batch_former.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace temper::learner {
namespace {

bool TooOldAt(const HeldGroup& group, uint64_t version, uint64_t max_staleness) {
  return version > group.oldest_version && version - group.oldest_version > max_staleness;
}

}  // namespace

BatchDecision DecideBatch(const std::vector<HeldGroup>& held, uint64_t step, const StepBound& bound,
                          const BatchRules& rules) {
  const uint64_t version = step - 1;
  BatchDecision decision;
  std::vector<size_t> usable;
  std::vector<size_t> zero_variance;
  std::vector<size_t> stale;
  for (size_t i = 0; i < held.size(); ++i) {
    if (held[i].zero_variance) {
      zero_variance.push_back(i);
    } else if (TooOldAt(held[i], version, rules.max_staleness)) {
      stale.push_back(i);
    } else {
      usable.push_back(i);
    }
  }
  const auto by_index = [&](size_t a, size_t b) {
    return held[a].group_index < held[b].group_index;
  };
  std::sort(usable.begin(), usable.end(), by_index);
  const size_t wanted = static_cast<size_t>(rules.groups_per_step);
  const bool told_to_close = bound.close_step && bound.step == step;
  if (usable.size() < wanted && !told_to_close) {
    decision.reason = absl::StrCat("holds ", usable.size(), " of ", wanted, " groups");
    return decision;
  }

  const size_t taken = std::min(wanted, usable.size());
  decision.action = taken == 0 ? BatchAction::kSkip : BatchAction::kTrain;
  decision.reason = taken == wanted ? absl::StrCat("holds all ", wanted, " groups")
                                    : absl::StrCat("closed with ", taken, " of ", wanted,
                                                   " groups: ", bound.reason);
  decision.train.assign(usable.begin(), usable.begin() + taken);
  for (size_t i = taken; i < usable.size(); ++i) {
    if (TooOldAt(held[usable[i]], step, rules.max_staleness)) stale.push_back(usable[i]);
  }
  std::sort(stale.begin(), stale.end(), by_index);
  std::sort(zero_variance.begin(), zero_variance.end(), by_index);
  decision.stale = std::move(stale);
  decision.zero_variance = std::move(zero_variance);
  return decision;
}

}  // namespace temper::learner
