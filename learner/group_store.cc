#include "learner/group_store.h"

#include <algorithm>
#include <iterator>
#include <stop_token>

namespace temper::learner {

std::vector<const RolloutGroup*> ExaminedGroups(const ClosedBatch& batch) {
  std::vector<const RolloutGroup*> groups;
  for (const RolloutGroup& group : batch.train) groups.push_back(&group);
  for (const RolloutGroup& group : batch.zero_variance) groups.push_back(&group);
  std::sort(groups.begin(), groups.end(), [](const RolloutGroup* a, const RolloutGroup* b) {
    return a->group_index < b->group_index;
  });
  return groups;
}

void GroupStore::Open(uint64_t timeline, uint64_t policy_version) {
  absl::MutexLock lock(&mutex_);
  snapshot_ = AdmissionSnapshot{.timeline = timeline, .policy_version = policy_version};
}

std::optional<AdmissionSnapshot> GroupStore::BeginExamination() {
  absl::MutexLock lock(&mutex_);
  if (snapshot_.has_value()) examining_version_ = snapshot_->policy_version;
  return snapshot_;
}

void GroupStore::EndExamination() {
  absl::MutexLock lock(&mutex_);
  examining_version_.reset();
}

absl::StatusOr<std::vector<RolloutGroup>> GroupStore::TakeStale(uint64_t version,
                                                                absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto settled = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !examining_version_.has_value() || *examining_version_ >= version;
  };
  if (!clock_->AwaitUntil(&mutex_, absl::Condition(&settled), deadline)) {
    return absl::DeadlineExceededError("an examination of a group does not end");
  }
  const auto fresh_end =
      std::stable_partition(groups_.begin(), groups_.end(), [&](const RolloutGroup& group) {
        return group.zero_variance || group.oldest_version + rules_.max_staleness >= version;
      });
  std::vector<RolloutGroup> stale(std::make_move_iterator(fresh_end),
                                  std::make_move_iterator(groups_.end()));
  groups_.erase(fresh_end, groups_.end());
  return stale;
}

std::optional<v1::SubmitGroupReply> GroupStore::Remembered(uint64_t group_index,
                                                           uint32_t attempt) const {
  absl::MutexLock lock(&mutex_);
  const auto found = answers_.find({group_index, attempt});
  if (found == answers_.end()) return std::nullopt;
  return found->second;
}

void GroupStore::Remember(uint64_t group_index, uint32_t attempt,
                          const v1::SubmitGroupReply& answer) {
  absl::MutexLock lock(&mutex_);
  const AnswerKey key{group_index, attempt};
  if (answers_.insert_or_assign(key, answer).second) answer_order_.push_back(key);
  while (answer_order_.size() > kRememberedAnswers) {
    answers_.erase(answer_order_.front());
    answer_order_.pop_front();
  }
}

void GroupStore::Hold(RolloutGroup group) {
  absl::MutexLock lock(&mutex_);
  const auto same = [&](const RolloutGroup& held) { return held.group_index == group.group_index; };
  if (std::any_of(groups_.begin(), groups_.end(), same)) return;
  groups_.push_back(std::move(group));
}

void GroupStore::NoteProgress(const v1::StepProgress& progress) {
  absl::MutexLock lock(&mutex_);
  if (progress.step() < bound_.step) return;  // of a step that is closed
  bound_ = {
      .step = progress.step(), .close_step = progress.close_step(), .reason = progress.reason()};
}

size_t GroupStore::held() const {
  absl::MutexLock lock(&mutex_);
  return groups_.size();
}

BatchDecision GroupStore::Decide(uint64_t step) const {
  std::vector<HeldGroup> held;
  held.reserve(groups_.size());
  for (const RolloutGroup& group : groups_) {
    held.push_back({.group_index = group.group_index,
                    .oldest_version = group.oldest_version,
                    .zero_variance = group.zero_variance});
  }
  return DecideBatch(held, step, bound_, rules_);
}

ClosedBatch GroupStore::Take(const BatchDecision& decision, uint64_t step) {
  ClosedBatch batch;
  batch.reason = decision.reason;
  std::vector<bool> taken(groups_.size(), false);
  const auto move_out = [&](const std::vector<size_t>& indices, std::vector<RolloutGroup>* to) {
    mutex_.AssertHeld();  // as all of Take
    for (const size_t index : indices) {
      to->push_back(std::move(groups_[index]));
      taken[index] = true;
    }
  };
  move_out(decision.train, &batch.train);
  move_out(decision.zero_variance, &batch.zero_variance);
  move_out(decision.stale, &batch.stale);
  std::vector<RolloutGroup> kept;
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (!taken[i]) kept.push_back(std::move(groups_[i]));
  }
  groups_ = std::move(kept);
  if (snapshot_.has_value()) snapshot_->policy_version = step;
  return batch;
}

absl::StatusOr<ClosedBatch> GroupStore::AwaitBatch(uint64_t step, absl::Time deadline,
                                                   base::StopToken* stop) {
  const std::stop_callback wake(stop->OnStop(), [this] {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  });
  absl::MutexLock lock(&mutex_);
  BatchDecision decision;
  const auto complete = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopped_) return true;
    decision = Decide(step);
    return decision.action != BatchAction::kWait;
  };
  const bool done = clock_->AwaitUntil(&mutex_, absl::Condition(&complete), deadline);
  if (stopped_) return absl::CancelledError("stopped while waiting for groups");
  if (!done) return absl::DeadlineExceededError(decision.reason);
  return Take(decision, step);
}

}  // namespace temper::learner
