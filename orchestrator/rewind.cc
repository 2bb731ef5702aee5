#include "orchestrator/rewind.h"

#include "absl/strings/str_cat.h"

namespace temper::orchestrator {

absl::StatusOr<RewindPlan> PlanRewind(uint64_t resume_step, const std::vector<CommitRow>& commits,
                                      const std::vector<GroupRow>& groups) {
  const uint64_t closed = commits.empty() ? 0 : commits.back().step;
  if (resume_step > closed) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the learner resumes after step ", resume_step, ", but this ledger has closed ", closed,
        " steps: checkpoint and run directory do not belong together"));
  }
  RewindPlan plan;
  for (const CommitRow& commit : commits) {
    if (commit.step == resume_step) plan.cursor = commit.cursor;
    if (commit.step > resume_step) plan.rewound_steps.push_back(commit.step);
  }
  for (const GroupRow& group : groups) {
    const bool closed_by_then =
        group.state == GroupState::kEnded && group.closed_step <= resume_step;
    if (group.group_index >= plan.cursor) {
      plan.forgotten_groups.push_back(group.group_index);
    } else if (!closed_by_then) {
      plan.pending_groups.push_back(group.group_index);
    }
  }
  plan.reason = absl::StrCat("resumes after step ", resume_step, " of ", closed, ": ",
                             plan.rewound_steps.size(), " steps rewound, cursor at ", plan.cursor,
                             ", ", plan.pending_groups.size(), " groups pending again");
  return plan;
}

}  // namespace temper::orchestrator
