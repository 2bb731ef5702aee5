#include "orchestrator/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/retry_policy.h"

namespace temper::orchestrator {
namespace {

using Durability = SqlDatabase::Durability;

std::string Name(const AttemptId& id) {
  return absl::StrCat("group ", id.group_index, " attempt ", id.attempt, " of timeline ",
                      id.timeline);
}

// The group as it is after its attempt ended.
GroupRow AfterEnd(GroupRow group, const AttemptEnd& end, uint64_t open_step) {
  if (end.lease_again) {
    group.state = GroupState::kPending;
    group.ready_at = end.ready_at;
  } else {
    group.state = GroupState::kEnded;
    group.closed_step = open_step;
  }
  return group;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(LedgerStore* store, absl::Time now,
                                                     absl::Duration lease_duration) {
  std::unique_ptr<Ledger> ledger(new Ledger(store));
  TEMPER_RETURN_IF_ERROR(ledger->Load(now, lease_duration));
  return ledger;
}

absl::Status Ledger::Load(absl::Time now, absl::Duration lease_duration) {
  TEMPER_ASSIGN_OR_RETURN(timeline_, store_->Number("timeline"));
  TEMPER_ASSIGN_OR_RETURN(timeline_floor_, store_->Number("timeline_floor"));
  TEMPER_ASSIGN_OR_RETURN(cursor_, store_->Number("cursor"));
  TEMPER_ASSIGN_OR_RETURN(const uint64_t last_lease, store_->Number("last_lease_id"));
  next_lease_id_ = last_lease + 1;
  TEMPER_ASSIGN_OR_RETURN(const std::vector<CommitRow> commits, store_->Commits());
  steps_closed_ = commits.empty() ? 0 : commits.back().step;
  TEMPER_ASSIGN_OR_RETURN(examined_, store_->CountExamined(timeline_, open_step()));
  TEMPER_ASSIGN_OR_RETURN(const std::vector<GroupRow> groups, store_->Groups());
  active_.clear();
  for (const GroupRow& group : groups) {
    if (group.state != GroupState::kEnded) active_[group.group_index].group = group;
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<AttemptRow> attempts, store_->OpenAttempts());
  for (const AttemptRow& attempt : attempts) {
    auto active = active_.find(attempt.id.group_index);
    if (active == active_.end() || attempt.id.timeline != timeline_) {
      return absl::DataLossError(
          absl::StrCat("ledger: ", Name(attempt.id), " is open, its group is not"));
    }
    active->second.attempt = attempt;
    if (attempt.state != AttemptState::kLeased) continue;
    active->second.armed_at = now;
    active->second.expires = now + lease_duration;
  }
  TEMPER_ASSIGN_OR_RETURN(at_commit_, store_->CountsAtCommit());
  TEMPER_ASSIGN_OR_RETURN(accounting_, store_->CountAttempts());
  return CheckAccounting(accounting_);
}

Accounting Ledger::SinceCommit() const {
  Accounting since;
  since.attempts_leased = accounting_.attempts_leased - at_commit_.attempts_leased;
  for (Ending ending : AllEndings()) {
    since.Ended(ending) = accounting_.Ended(ending) - at_commit_.Ended(ending);
  }
  return since;
}

uint32_t Ledger::kept() const {
  return std::count_if(active_.begin(), active_.end(), [](const auto& entry) {
    return entry.second.group.state == GroupState::kAdmitted &&
           entry.second.attempt->examination == Examination::kKept;
  });
}

uint32_t Ledger::unexamined() const {
  return std::count_if(active_.begin(), active_.end(), [](const auto& entry) {
    return entry.second.group.state != GroupState::kAdmitted;
  });
}

uint32_t Ledger::rounds_opened() const {
  // In a synchronous run nothing ends before its step is committed (no group can be stale), so the
  // groups of every round are still here.
  uint32_t rounds = 0;
  for (const auto& [index, active] : active_) {
    if (active.group.step == open_step()) rounds = std::max(rounds, active.group.round);
  }
  return rounds;
}

std::vector<uint64_t> Ledger::ReadyGroups(absl::Time now) const {
  std::vector<uint64_t> ready;
  for (const auto& [index, active] : active_) {
    if (active.group.state == GroupState::kPending && active.group.ready_at <= now) {
      ready.push_back(index);
    }
  }
  return ready;
}

uint32_t Ledger::BackingOff(absl::Time now) const {
  return std::count_if(active_.begin(), active_.end(), [now](const auto& entry) {
    return entry.second.group.state == GroupState::kPending && entry.second.group.ready_at > now;
  });
}

absl::Time Ledger::NextReady(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [index, active] : active_) {
    const GroupRow& group = active.group;
    if (group.state == GroupState::kPending && group.ready_at > now) {
      next = std::min(next, group.ready_at);
    }
  }
  return next;
}

absl::Time Ledger::NextExpiry() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [index, active] : active_) {
    if (active.group.state == GroupState::kLeased) next = std::min(next, active.expires);
  }
  return next;
}

absl::Status Ledger::OpenGroups(uint32_t count, uint32_t round) {
  std::vector<GroupRow> groups;
  for (uint32_t i = 0; i < count; ++i) {
    groups.push_back({.group_index = cursor_ + i, .step = open_step(), .round = round});
  }
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kProcess, [&]() -> absl::Status {
    for (const GroupRow& group : groups) TEMPER_RETURN_IF_ERROR(store_->PutGroup(group));
    return store_->PutNumber("cursor", cursor_ + count);
  }));
  for (const GroupRow& group : groups) active_[group.group_index].group = group;
  cursor_ += count;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<AttemptRow>> Ledger::Lease(absl::Span<const uint64_t> groups,
                                                      const AttemptHolder& holder, uint64_t version,
                                                      absl::Time now, absl::Duration duration) {
  std::vector<AttemptRow> attempts;
  for (uint64_t index : groups) {
    auto active = active_.find(index);
    if (active == active_.end() || active->second.group.state != GroupState::kPending) {
      return absl::FailedPreconditionError(absl::StrCat("group ", index, " is not pending"));
    }
    AttemptRow attempt;
    attempt.id = {timeline_, index, active->second.group.attempts + 1};
    attempt.lease_id = next_lease_id_;
    attempt.worker = holder.worker;
    attempt.incarnation = holder.incarnation;
    attempt.version = version;
    attempt.leased_at = now;
    attempts.push_back(std::move(attempt));
  }
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kProcess, [&]() -> absl::Status {
    for (const AttemptRow& attempt : attempts) {
      GroupRow group = active_.at(attempt.id.group_index).group;
      group.state = GroupState::kLeased;
      group.attempts = attempt.id.attempt;
      TEMPER_RETURN_IF_ERROR(store_->PutGroup(group));
      TEMPER_RETURN_IF_ERROR(store_->PutAttempt(attempt));
    }
    TEMPER_RETURN_IF_ERROR(store_->PutNumber("last_lease_id", next_lease_id_));
    return store_->PutNumber("attempts_leased", accounting_.attempts_leased + attempts.size());
  }));
  for (const AttemptRow& attempt : attempts) {
    Active& active = active_.at(attempt.id.group_index);
    active.group.state = GroupState::kLeased;
    active.group.attempts = attempt.id.attempt;
    active.attempt = attempt;
    active.armed_at = now;
    active.expires = now + duration;
  }
  ++next_lease_id_;
  accounting_.attempts_leased += attempts.size();
  accounting_.leased += attempts.size();
  return attempts;
}

absl::StatusOr<uint64_t> Ledger::NextLeaseId() {
  TEMPER_RETURN_IF_ERROR(store_->PutNumber("last_lease_id", next_lease_id_));
  return next_lease_id_++;
}

absl::Status Ledger::End(absl::Span<const AttemptEnd> ends) {
  std::vector<Active> after;
  for (const AttemptEnd& end : ends) {
    if (FindOpen(end.id) == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(Name(end.id), " has ended already"));
    }
    Active active = active_.at(end.id.group_index);
    active.group = AfterEnd(active.group, end, open_step());
    active.attempt->state = AttemptState::kEnded;
    active.attempt->ending = end.ending;
    active.attempt->detail = end.detail;
    if (end.ending == Ending::kDroppedStale) active.attempt->examination = Examination::kStale;
    if (end.ending == Ending::kRefused) active.attempt->examination = Examination::kRefused;
    after.push_back(std::move(active));
  }
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kProcess, [&]() -> absl::Status {
    for (const Active& active : after) {
      TEMPER_RETURN_IF_ERROR(store_->PutGroup(active.group));
      TEMPER_RETURN_IF_ERROR(store_->PutAttempt(*active.attempt));
    }
    return absl::OkStatus();
  }));
  for (Active& active : after) {
    const uint64_t index = active.group.group_index;
    const bool was_leased = active_.at(index).group.state == GroupState::kLeased;
    --(was_leased ? accounting_.leased : accounting_.admitted);
    ++accounting_.Ended(active.attempt->ending);
    active.attempt.reset();
    active.expires = absl::InfiniteFuture();
    if (active.group.state == GroupState::kEnded) {
      active_.erase(index);
    } else {
      active_[index] = std::move(active);
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::Admit(const AttemptId& id, Examination examination,
                           const std::string& reason) {
  const AttemptRow* open = FindOpen(id);
  if (open == nullptr || open->state != AttemptState::kLeased) {
    return absl::FailedPreconditionError(absl::StrCat(Name(id), " is not leased"));
  }
  Active active = active_.at(id.group_index);
  active.group.state = GroupState::kAdmitted;
  active.attempt->state = AttemptState::kAdmitted;
  active.attempt->examination = examination;
  active.attempt->examined_step = open_step();
  active.attempt->detail = reason;
  active.expires = absl::InfiniteFuture();
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kProcess, [&]() -> absl::Status {
    TEMPER_RETURN_IF_ERROR(store_->PutGroup(active.group));
    return store_->PutAttempt(*active.attempt);
  }));
  active_[id.group_index] = std::move(active);
  ++examined_;
  --accounting_.leased;
  ++accounting_.admitted;
  return absl::OkStatus();
}

const AttemptRow* Ledger::FindOpen(const AttemptId& id) const {
  auto active = active_.find(id.group_index);
  if (active == active_.end() || !active->second.attempt) return nullptr;
  return active->second.attempt->id == id ? &*active->second.attempt : nullptr;
}

absl::StatusOr<std::optional<AttemptRow>> Ledger::Find(const AttemptId& id) {
  if (const AttemptRow* open = FindOpen(id)) return std::optional<AttemptRow>(*open);
  return store_->FindAttempt(id);
}

std::vector<AttemptId> Ledger::HeldBy(const std::string& worker, uint64_t incarnation) const {
  std::vector<AttemptId> held;
  for (const auto& [index, active] : active_) {
    if (active.group.state == GroupState::kLeased && active.attempt->worker == worker &&
        active.attempt->incarnation == incarnation) {
      held.push_back(active.attempt->id);
    }
  }
  return held;
}

std::vector<AttemptId> Ledger::AllOpen() const {
  std::vector<AttemptId> open;
  for (const auto& [index, active] : active_) {
    if (active.attempt) open.push_back(active.attempt->id);
  }
  return open;
}

std::vector<AttemptId> Ledger::Expired(absl::Time now) const {
  std::vector<AttemptId> expired;
  for (const auto& [index, active] : active_) {
    if (active.group.state == GroupState::kLeased && active.expires <= now) {
      expired.push_back(active.attempt->id);
    }
  }
  return expired;
}

bool Ledger::Renew(const AttemptId& id, const AttemptHolder& holder, absl::Time now,
                   absl::Duration duration) {
  auto active = active_.find(id.group_index);
  if (active == active_.end() || active->second.group.state != GroupState::kLeased) return false;
  const AttemptRow& attempt = *active->second.attempt;
  if (attempt.id != id || attempt.worker != holder.worker ||
      attempt.incarnation != holder.incarnation) {
    return false;
  }
  active->second.expires = RenewedUntil(active->second.armed_at, now, duration);
  return true;
}

absl::Time Ledger::ArmedAt(const AttemptId& id) const {
  const AttemptRow* open = FindOpen(id);
  if (open == nullptr || open->state != AttemptState::kLeased) return absl::InfinitePast();
  return active_.at(id.group_index).armed_at;
}

uint32_t Ledger::AttemptsMade(uint64_t group_index) const {
  auto active = active_.find(group_index);
  return active == active_.end() ? 0 : active->second.group.attempts;
}

}  // namespace temper::orchestrator
