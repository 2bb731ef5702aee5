#pragma once

// What the beginning of a new timeline does to the ledger: everything after the step that the
// learner resumes from is cut off. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "orchestrator/ledger_types.h"

namespace temper::orchestrator {

struct RewindPlan {
  uint64_t cursor = 0;  // the next group_index again, as it was at the commit of resume_step
  std::vector<uint64_t> forgotten_groups;  // at or behind the cursor: they never were
  std::vector<uint64_t> pending_groups;    // before the cursor and not closed by then: leased again
  std::vector<uint64_t> rewound_steps;     // their metrics leave metrics.jsonl
  std::string reason;
};

// groups: every group of the current timeline. commits: those that stand (rewound_by 0), ascending.
// In a synchronous run every group before the cursor was closed by its step, so pending_groups is
// empty and the same indices are leased again, which makes the same samples.
// Returns: FailedPrecondition if the ledger has not closed resume_step.
absl::StatusOr<RewindPlan> PlanRewind(uint64_t resume_step, const std::vector<CommitRow>& commits,
                                      const std::vector<GroupRow>& groups);

}  // namespace temper::orchestrator
