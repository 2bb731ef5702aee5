#include "orchestrator/eval_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/retry_policy.h"

namespace temper::orchestrator {

using Durability = SqlDatabase::Durability;

absl::StatusOr<std::unique_ptr<EvalLedger>> EvalLedger::Open(LedgerStore* store, absl::Time now,
                                                             absl::Duration lease_duration) {
  std::unique_ptr<EvalLedger> ledger(new EvalLedger(store));
  TEMPER_RETURN_IF_ERROR(ledger->Reload(now, lease_duration));
  return ledger;
}

absl::Status EvalLedger::Reload(absl::Time now, absl::Duration lease_duration) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<EvalItemRow> items, store_->EvalItems());
  items_.clear();
  leases_.clear();
  for (const EvalItemRow& item : items) {
    next_index_ = item.item_index + 1;
    if (item.state == EvalState::kRewound) continue;
    items_[item.item_index] = item;
    if (item.state == EvalState::kLeased) leases_[item.item_index] = {now, now + lease_duration};
  }
  return absl::OkStatus();
}

absl::Status EvalLedger::AddItems(const std::vector<EvalItemSpec>& items,
                                  const std::function<absl::Status()>& also) {
  std::vector<EvalItemRow> rows;
  for (const EvalItemSpec& spec : items) {
    const bool known = std::any_of(items_.begin(), items_.end(), [&](const auto& entry) {
      return entry.second.spec.version == spec.version;
    });
    if (known) continue;
    EvalItemRow row;
    row.item_index = next_index_ + rows.size();
    row.spec = spec;
    rows.push_back(std::move(row));
  }
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kDurable, [&]() -> absl::Status {
    for (const EvalItemRow& row : rows) TEMPER_RETURN_IF_ERROR(store_->PutEvalItem(row));
    return also();
  }));
  next_index_ += rows.size();
  for (EvalItemRow& row : rows) items_[row.item_index] = std::move(row);
  return absl::OkStatus();
}

absl::Status EvalLedger::Rewind(uint64_t step) {
  for (auto [index, item] : items_) {
    if (item.spec.version > step) {
      item.state = EvalState::kRewound;
    } else if (item.state == EvalState::kLeased) {
      item.state = EvalState::kPending;
    } else {
      continue;
    }
    TEMPER_RETURN_IF_ERROR(store_->PutEvalItem(item));
  }
  return absl::OkStatus();
}

bool EvalLedger::open() const {
  return std::any_of(items_.begin(), items_.end(),
                     [](const auto& entry) { return entry.second.state != EvalState::kDone; });
}

bool EvalLedger::OpenOfOthers(uint64_t version) const {
  return std::any_of(items_.begin(), items_.end(), [version](const auto& entry) {
    return entry.second.state != EvalState::kDone && entry.second.spec.version != version;
  });
}

std::optional<uint64_t> EvalLedger::ReadyItem(absl::Time now) const {
  for (const auto& [index, item] : items_) {
    if (item.state == EvalState::kPending && item.ready_at <= now) return index;
  }
  return std::nullopt;
}

uint32_t EvalLedger::BackingOff(absl::Time now) const {
  return std::count_if(items_.begin(), items_.end(), [now](const auto& entry) {
    return entry.second.state == EvalState::kPending && entry.second.ready_at > now;
  });
}

absl::Time EvalLedger::NextReady(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [index, item] : items_) {
    if (item.state == EvalState::kPending && item.ready_at > now) {
      next = std::min(next, item.ready_at);
    }
  }
  return next;
}

absl::Time EvalLedger::NextExpiry() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [index, lease] : leases_) next = std::min(next, lease.expires);
  return next;
}

const EvalItemRow* EvalLedger::Find(uint64_t item_index) const {
  auto item = items_.find(item_index);
  return item == items_.end() ? nullptr : &item->second;
}

absl::Status EvalLedger::Replace(const EvalItemRow& item) {
  TEMPER_RETURN_IF_ERROR(store_->PutEvalItem(item));
  items_[item.item_index] = item;
  leases_.erase(item.item_index);
  return absl::OkStatus();
}

absl::StatusOr<EvalItemRow> EvalLedger::Lease(uint64_t item_index, const std::string& worker,
                                              uint64_t incarnation, absl::Time now,
                                              absl::Duration duration) {
  const EvalItemRow* known = Find(item_index);
  if (known == nullptr || known->state != EvalState::kPending) {
    return absl::FailedPreconditionError(
        absl::StrCat("evaluation item ", item_index, " is not pending"));
  }
  EvalItemRow item = *known;
  item.state = EvalState::kLeased;
  ++item.attempts;
  item.worker = worker;
  item.incarnation = incarnation;
  TEMPER_RETURN_IF_ERROR(Replace(item));
  leases_[item_index] = {now, now + duration};
  return item;
}

absl::Status EvalLedger::Fail(uint64_t item_index, absl::Time ready_at) {
  const EvalItemRow* known = Find(item_index);
  if (known == nullptr || known->state != EvalState::kLeased) {
    return absl::FailedPreconditionError(
        absl::StrCat("evaluation item ", item_index, " is not leased"));
  }
  EvalItemRow item = *known;
  item.state = EvalState::kPending;
  item.ready_at = ready_at;
  return Replace(item);
}

absl::Status EvalLedger::Finish(uint64_t item_index, const std::vector<OutcomeRow>& outcomes,
                                const EvalInjections& injections) {
  const EvalItemRow* known = Find(item_index);
  if (known == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("no evaluation item ", item_index));
  }
  if (known->state == EvalState::kDone) {
    return absl::AlreadyExistsError(absl::StrCat("evaluation item ", item_index, " is done"));
  }
  EvalItemRow item = *known;
  item.state = EvalState::kDone;
  item.elements = injections.elements;
  item.injected_elements = injections.injected_elements;
  item.sum_sq_error = injections.sum_sq_error;
  item.sum_sq_value = injections.sum_sq_value;
  TEMPER_RETURN_IF_ERROR(store_->Transact(Durability::kDurable, [&]() -> absl::Status {
    TEMPER_RETURN_IF_ERROR(store_->PutEvalItem(item));
    return store_->PutOutcomes(item_index, outcomes);
  }));
  items_[item_index] = item;
  leases_.erase(item_index);
  return absl::OkStatus();
}

std::vector<uint64_t> EvalLedger::HeldBy(const std::string& worker, uint64_t incarnation) const {
  std::vector<uint64_t> held;
  for (const auto& [index, item] : items_) {
    if (item.state == EvalState::kLeased && item.worker == worker &&
        item.incarnation == incarnation) {
      held.push_back(index);
    }
  }
  return held;
}

std::vector<uint64_t> EvalLedger::Expired(absl::Time now) const {
  std::vector<uint64_t> expired;
  for (const auto& [index, lease] : leases_) {
    if (lease.expires <= now) expired.push_back(index);
  }
  return expired;
}

bool EvalLedger::Renew(uint64_t item_index, const std::string& worker, uint64_t incarnation,
                       absl::Time now, absl::Duration duration) {
  const EvalItemRow* item = Find(item_index);
  if (item == nullptr || item->state != EvalState::kLeased || item->worker != worker ||
      item->incarnation != incarnation) {
    return false;
  }
  LeaseTimes& lease = leases_.at(item_index);
  lease.expires = RenewedUntil(lease.armed_at, now, duration);
  return true;
}

absl::Time EvalLedger::ArmedAt(uint64_t item_index) const {
  auto lease = leases_.find(item_index);
  return lease == leases_.end() ? absl::InfinitePast() : lease->second.armed_at;
}

absl::StatusOr<std::vector<EvalResult>> EvalLedger::Results() {
  std::vector<EvalResult> results;
  for (const auto& [index, item] : items_) {
    const EvalItemSpec& spec = item.spec;
    if (results.empty() || results.back().version != spec.version ||
        results.back().error_scale != spec.error_scale ||
        results.back().noise_seed != spec.noise_seed || results.back().injected != spec.injected) {
      results.push_back({spec.version, spec.error_scale, spec.noise_seed, spec.injected});
    }
    EvalResult& result = results.back();
    result.questions += spec.questions;
    if (item.state != EvalState::kDone) continue;
    TEMPER_ASSIGN_OR_RETURN(const std::vector<OutcomeRow> outcomes, store_->Outcomes(index));
    result.outcomes.insert(result.outcomes.end(), outcomes.begin(), outcomes.end());
    result.injections.elements += item.elements;
    result.injections.injected_elements += item.injected_elements;
    result.injections.sum_sq_error += item.sum_sq_error;
    result.injections.sum_sq_value += item.sum_sq_value;
  }
  return results;
}

}  // namespace temper::orchestrator
