// The ledger's two durable moves: closing a step and beginning a timeline.

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "orchestrator/ledger.h"

namespace temper::orchestrator {
namespace {

using Durability = SqlDatabase::Durability;

bool MayCommit(Ending ending) {
  return ending == Ending::kTrained || ending == Ending::kDroppedZeroVariance ||
         ending == Ending::kDroppedStale;
}

}  // namespace

absl::Status Ledger::CheckClosed(absl::Span<const ClosedAttempt> closed) const {
  std::set<uint64_t> seen;
  for (const ClosedAttempt& entry : closed) {
    const AttemptRow* open = FindOpen({timeline_, entry.group_index, entry.attempt});
    if (open == nullptr || open->state != AttemptState::kAdmitted) {
      return absl::FailedPreconditionError(
          absl::StrCat("the commit closes group ", entry.group_index, " attempt ", entry.attempt,
                       ", which is not admitted in timeline ", timeline_));
    }
    if (!MayCommit(entry.ending)) {
      return absl::InvalidArgumentError(absl::StrCat("the commit ends group ", entry.group_index,
                                                     " as ", EndingName(entry.ending)));
    }
    if (!seen.insert(entry.group_index).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the commit lists group ", entry.group_index, " twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::Commit(CommitRow commit, absl::Span<const ClosedAttempt> closed) {
  if (commit.timeline != timeline_ || commit.step != open_step()) {
    return absl::FailedPreconditionError(
        absl::StrCat("commit of step ", commit.step, " in timeline ", commit.timeline,
                     ", but step ", open_step(), " of timeline ", timeline_, " is open"));
  }
  TEMPER_RETURN_IF_ERROR(CheckClosed(closed));
  commit.cursor = cursor_;
  Accounting after = accounting_;
  for (const ClosedAttempt& entry : closed) {
    --after.admitted;
    ++after.Ended(entry.ending);
  }
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kDurable, [&]() -> absl::Status {
    for (const ClosedAttempt& entry : closed) {
      Active active = active_.at(entry.group_index);
      active.group.state = GroupState::kEnded;
      active.group.closed_step = commit.step;
      active.attempt->state = AttemptState::kEnded;
      active.attempt->ending = entry.ending;
      active.attempt->closed_step = commit.step;
      TEMPER_RETURN_IF_ERROR(store_->PutGroup(active.group));
      TEMPER_RETURN_IF_ERROR(store_->PutAttempt(*active.attempt));
    }
    TEMPER_RETURN_IF_ERROR(store_->PutCountsAtCommit(after));
    return store_->PutCommit(commit);
  }));
  for (const ClosedAttempt& entry : closed) active_.erase(entry.group_index);
  accounting_ = at_commit_ = after;
  steps_closed_ = commit.step;
  examined_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<RewindPlan> Ledger::BeginTimeline(
    uint64_t resume_step, const std::function<absl::Status(const RewindPlan&)>& also) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<CommitRow> commits, store_->Commits());
  TEMPER_ASSIGN_OR_RETURN(const std::vector<GroupRow> groups, store_->Groups());
  TEMPER_ASSIGN_OR_RETURN(RewindPlan plan, PlanRewind(resume_step, commits, groups));
  const uint64_t next = std::max(timeline_, timeline_floor_) + 1;
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kDurable, [&]() -> absl::Status {
    TEMPER_RETURN_IF_ERROR(
        store_->RewindAttempts(resume_step, absl::StrCat("timeline ", next, " began")));
    TEMPER_ASSIGN_OR_RETURN(const Accounting after, store_->CountAttempts());
    Accounting at_commit = at_commit_;
    for (Ending ending : AllEndings()) {  // what had ended and is rewound now was before the commit
      if (ending == Ending::kRewound) continue;
      at_commit.Ended(ending) -= accounting_.Ended(ending) - after.Ended(ending);
    }
    TEMPER_RETURN_IF_ERROR(store_->PutCountsAtCommit(at_commit));
    TEMPER_RETURN_IF_ERROR(store_->RewindCommits(resume_step, next));
    for (uint64_t index : plan.forgotten_groups) {
      TEMPER_RETURN_IF_ERROR(store_->DeleteGroup(index));
    }
    for (uint64_t index : plan.pending_groups) {
      TEMPER_RETURN_IF_ERROR(
          store_->PutGroup({.group_index = index, .step = resume_step + 1, .round = 1}));
    }
    TEMPER_RETURN_IF_ERROR(store_->PutNumber("cursor", plan.cursor));
    TEMPER_RETURN_IF_ERROR(store_->PutNumber("timeline", next));
    return also(plan);
  }));
  // Nothing is leased in the new timeline, so there is no lease to re-arm.
  TEMPER_RETURN_IF_ERROR(Load(absl::InfinitePast(), absl::ZeroDuration()));
  return plan;
}

absl::Status Ledger::VerifyAccounting() {
  TEMPER_ASSIGN_OR_RETURN(const Accounting counted, store_->CountAttempts());
  TEMPER_RETURN_IF_ERROR(CheckAccounting(counted));
  TEMPER_RETURN_IF_ERROR(CheckAccounting(accounting_));
  if (!(counted == accounting_)) {
    return absl::InternalError("the counts in memory differ from the rows of the ledger");
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<uint64_t> twice, store_->GroupsTrainedTwice());
  if (!twice.empty()) {
    return absl::InternalError(absl::StrCat("group ", twice.front(), " was trained twice"));
  }
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
