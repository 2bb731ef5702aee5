#include "orchestrator/step_policy.h"

#include <algorithm>

namespace temper::orchestrator {
namespace {

OpenDecision OpenSynchronous(const StepOptions& options, const StepSnapshot& now) {
  if (now.latest_version != now.steps_closed) return {0, now.rounds_opened, "awaiting_version"};
  if (now.rounds_opened == 0) return {options.groups_per_step, 1, "first_round"};
  if (now.unexamined > 0) return {0, now.rounds_opened, "round_in_progress"};
  if (now.kept >= options.groups_per_step) return {0, now.rounds_opened, "batch_full"};
  if (now.rounds_opened >= options.max_rounds) return {0, now.rounds_opened, "filter_bound"};
  return {options.groups_per_step - now.kept, now.rounds_opened + 1, "deficit"};
}

OpenDecision OpenAsynchronous(const StepOptions& options, const StepSnapshot& now) {
  const uint64_t steps_ahead =
      std::min<uint64_t>(options.max_staleness + 1ULL, options.planned_steps - now.steps_closed);
  const uint64_t capacity = steps_ahead * options.groups_per_step;
  const uint64_t active = uint64_t{now.unexamined} + now.kept;
  if (active >= capacity) return {0, 1, "at_capacity"};
  return {static_cast<uint32_t>(capacity - active), 1, "capacity"};
}

}  // namespace

OpenDecision DecideOpen(const StepOptions& options, const StepSnapshot& snapshot) {
  if (!snapshot.has_version) return {0, snapshot.rounds_opened, "no_version"};
  if (snapshot.steps_closed >= options.planned_steps) {
    return {0, snapshot.rounds_opened, "all_steps_closed"};
  }
  if (options.groups_per_step == 0) return {0, 0, "no_groups_needed"};
  return options.max_staleness == 0 ? OpenSynchronous(options, snapshot)
                                    : OpenAsynchronous(options, snapshot);
}

CloseDecision DecideClose(const StepOptions& options, const StepSnapshot& snapshot) {
  if (snapshot.steps_closed >= options.planned_steps) return {false, "all_steps_closed"};
  if (snapshot.kept >= options.groups_per_step) return {false, "batch_full"};
  if (options.max_staleness == 0) {
    if (snapshot.rounds_opened == 0) return {false, "not_begun"};
    if (snapshot.unexamined > 0) return {false, "round_in_progress"};
    if (snapshot.rounds_opened < options.max_rounds) return {false, "another_round"};
    return {true, "filter_bound"};
  }
  const uint64_t bound = uint64_t{options.max_rounds} * options.groups_per_step;
  if (snapshot.examined >= bound) return {true, "filter_bound"};
  return {false, "below_filter_bound"};
}

}  // namespace temper::orchestrator
