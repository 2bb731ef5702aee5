#pragma once

// How many groups a step opens, and when it is closed with what there is. Pure.
//
// Synchronous (max_staleness 0): step s samples with version s - 1. Round 1 opens groups_per_step
// groups; when all of a round are examined, the next opens the exact deficit, up to max_rounds. So
// which groups exist depends on their outcomes alone, never on workers or timing.
// Asynchronous: groups are opened while fewer than (max_staleness + 1) x groups_per_step are
// active; the bound is max_rounds x groups_per_step examined since the last step closed.

#include <cstdint>
#include <string>

namespace temper::orchestrator {

struct StepOptions {
  uint32_t groups_per_step = 1;  // 0: steps need none (supervised training)
  uint32_t max_staleness = 0;    // steps
  uint32_t max_rounds = 1;       // filter rounds; 1 where dynamic sampling is off
  uint64_t planned_steps = 0;    // T
};

struct StepSnapshot {
  uint64_t steps_closed = 0;
  bool has_version = false;  // a version is out in this timeline
  uint64_t latest_version = 0;
  uint32_t rounds_opened = 0;  // filter rounds the open step has begun; synchronous only
  uint32_t unexamined = 0;     // groups pending or leased
  uint32_t kept = 0;           // groups admitted as kept, not yet committed
  uint32_t examined = 0;       // kept or dropped by the filter since the last step closed
};

struct OpenDecision {
  uint32_t groups = 0;  // to open now
  uint32_t round = 0;   // filter round they belong to; 1 in asynchronous runs
  std::string reason;   // why none, or why these: "first_round", "deficit", "capacity", ...
};
OpenDecision DecideOpen(const StepOptions& options, const StepSnapshot& snapshot);

struct CloseDecision {
  bool close = false;
  std::string reason;  // "filter_bound", or why not yet
};
// Whether the learner is to close the step although its batch is not full.
CloseDecision DecideClose(const StepOptions& options, const StepSnapshot& snapshot);

}  // namespace temper::orchestrator
