#pragma once

// The ledger of rollout groups: which exist, who has them, how each attempt ended, which steps are
// closed. The database is the truth; what is not ended is mirrored in memory.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "orchestrator/accounting.h"
#include "orchestrator/ledger_store.h"
#include "orchestrator/ledger_types.h"
#include "orchestrator/rewind.h"

namespace temper::orchestrator {

struct AttemptHolder {
  std::string worker;
  uint64_t incarnation = 0;
};

// An ending of an attempt, and of its group unless `lease_again`.
struct AttemptEnd {
  AttemptId id;
  Ending ending = Ending::kNone;
  std::string detail;
  bool lease_again = false;
  absl::Time ready_at;  // lease_again: not before
};

struct ClosedAttempt {
  uint64_t group_index = 0;
  uint32_t attempt = 0;
  Ending ending = Ending::kNone;  // trained, dropped_zero_variance or dropped_stale
};

// Every method that changes something is one transaction: it happens whole or not at all, and has
// survived a kill -9 when it returns; Commit and BeginTimeline survive the loss of power too.
// Errors of all methods: those of SqlDatabase; then nothing has changed and the call may be
// repeated. Thread-compatible: the coordinator's mutex guards it.
class Ledger final {
 public:
  // Reads what `store` (which outlives it) holds. Leases found there are re-armed: they end
  // lease_duration after `now` unless renewed.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(LedgerStore* store, absl::Time now,
                                                      absl::Duration lease_duration);

  uint64_t timeline() const { return timeline_; }  // 0: none has begun
  uint64_t steps_closed() const { return steps_closed_; }
  uint64_t open_step() const { return steps_closed_ + 1; }
  uint64_t cursor() const { return cursor_; }      // group_index of the next group to be opened
  uint32_t examined() const { return examined_; }  // by the filter, since the last step closed
  uint32_t kept() const;                           // admitted as kept, not yet committed
  uint32_t unexamined() const;                     // groups pending or leased
  uint32_t rounds_opened() const;                  // filter rounds of the open step
  std::vector<uint64_t> ReadyGroups(absl::Time now) const;  // pending, back-off over; ascending
  uint32_t BackingOff(absl::Time now) const;                // pending, back-off not over
  absl::Time NextReady(absl::Time now) const;  // when the next back-off ends; InfiniteFuture: none
  absl::Time NextExpiry() const;               // of a lease; InfiniteFuture: none

  // Opens `count` groups for the open step: indices cursor .. cursor + count - 1, pending.
  absl::Status OpenGroups(uint32_t count, uint32_t round);
  // pending -> leased, all under one lease_id. Attempts are numbered from 1 in each timeline.
  // FailedPrecondition: a group that is not pending.
  absl::StatusOr<std::vector<AttemptRow>> Lease(absl::Span<const uint64_t> groups,
                                                const AttemptHolder& holder, uint64_t version,
                                                absl::Time now, absl::Duration duration);
  absl::StatusOr<uint64_t> NextLeaseId();  // for leases that are not of groups

  // leased -> ended, or admitted -> ended, each. FailedPrecondition: one that is neither.
  absl::Status End(absl::Span<const AttemptEnd> ends);
  // leased -> admitted; counts as examined. FailedPrecondition: not leased.
  absl::Status Admit(const AttemptId& id, Examination examination, const std::string& reason);

  // Closes the open step: commit.step must be open_step(), commit.timeline the current one, and
  // every closed attempt admitted. FailedPrecondition otherwise. Fills in the cursor.
  absl::Status Commit(CommitRow commit, absl::Span<const ClosedAttempt> closed);
  // Begins the next timeline, of a number that was never given before, after `resume_step`:
  // everything later is rewound (rewind.h), every open attempt ends rewound. `also` runs in the
  // same transaction, given the plan. FailedPrecondition: PlanRewind's.
  absl::StatusOr<RewindPlan> BeginTimeline(
      uint64_t resume_step, const std::function<absl::Status(const RewindPlan&)>& also);

  // A live attempt (leased or admitted) of the current timeline; null: none.
  const AttemptRow* FindOpen(const AttemptId& id) const;
  // Any attempt ever made.
  absl::StatusOr<std::optional<AttemptRow>> Find(const AttemptId& id);
  std::vector<AttemptId> HeldBy(const std::string& worker, uint64_t incarnation) const;  // leased
  std::vector<AttemptId> Expired(absl::Time now) const;                                  // leased
  std::vector<AttemptId> AllOpen() const;  // leased or admitted
  // The lease of `id` now ends as RenewedUntil (retry_policy.h) says, counted from when it was
  // given or re-armed; false if it is not leased to the holder.
  bool Renew(const AttemptId& id, const AttemptHolder& holder, absl::Time now,
             absl::Duration duration);
  absl::Time ArmedAt(const AttemptId& id) const;      // given or re-armed; InfinitePast: not leased
  uint32_t AttemptsMade(uint64_t group_index) const;  // in this timeline; 0 for one that has ended

  // Attempts leased and ended since the step before the open one was committed; what is leased or
  // admitted now is not in it. A new timeline goes on counting: attempts that it rewinds are new
  // endings (rewound), also those that had ended in a step it cuts off. Survives a restart.
  Accounting SinceCommit() const;

  // Kept move by move, for the metrics. VerifyAccounting counts the rows of the database: Internal
  // if the law is broken, a group of what stands is trained twice, or the two disagree.
  const Accounting& accounting() const { return accounting_; }
  absl::Status VerifyAccounting();

 private:
  struct Active {
    GroupRow group;
    std::optional<AttemptRow> attempt;            // leased or admitted
    absl::Time armed_at = absl::InfinitePast();   // leased: when, or armed again at a start
    absl::Time expires = absl::InfiniteFuture();  // leased
  };
  explicit Ledger(LedgerStore* store) : store_(store) {}
  absl::Status Load(absl::Time now, absl::Duration lease_duration);
  absl::Status CheckClosed(absl::Span<const ClosedAttempt> closed) const;

  LedgerStore* const store_;
  uint64_t timeline_ = 0;
  uint64_t timeline_floor_ =
      0;  // numbers up to this one were given before this ledger was restored
  uint64_t steps_closed_ = 0;
  uint64_t cursor_ = 0;
  uint64_t next_lease_id_ = 1;
  uint32_t examined_ = 0;
  std::map<uint64_t, Active> active_;  // groups that have not ended, by index
  Accounting accounting_;
  Accounting at_commit_;  // what SinceCommit subtracts
};

}  // namespace temper::orchestrator
