#pragma once

// The groups the learner holds between their admission and the commit of their step: the only state
// that the thread which admits and the thread which trains share.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "learner/admission.h"
#include "learner/batch_former.h"
#include "learner/rollout_group.h"
#include "services/base/clock.h"
#include "services/base/stop_token.h"

namespace temper::learner {

// What a step closes, each list in ascending group_index.
struct ClosedBatch {
  std::vector<RolloutGroup> train;  // empty: the step is skipped
  std::vector<RolloutGroup> zero_variance;
  std::vector<RolloutGroup> stale;
  std::string reason;
};

// The groups of a batch that the filter examined, trained and of zero variance, in ascending
// group_index, so that sums over them do not depend on arrival. Views into `batch`.
std::vector<const RolloutGroup*> ExaminedGroups(const ClosedBatch& batch);

// Thread-safe. Until Open nothing is admitted. Bounded by the orchestrator's capacity: it leases at
// most (max_staleness + 1) * groups_per_step groups that are not committed, and examined groups of
// no variance are at most max_rounds times that.
class GroupStore final {
 public:
  // Answers to the newest so many submits are remembered for repeats.
  static constexpr size_t kRememberedAnswers = 4096;

  explicit GroupStore(const BatchRules& rules, base::Clock* clock = base::SystemClock())
      : rules_(rules), clock_(clock) {}

  // Admission begins: submits of `timeline` are judged against `policy_version`, the one that a
  // group admitted now is trained on at the earliest. It grows when AwaitBatch hands out a step's
  // batch: what arrives during the update can only be trained after it.
  void Open(uint64_t timeline, uint64_t policy_version);

  // What to examine against; nullopt before Open. Every Begin has its End, after Hold; one
  // examination at a time.
  std::optional<AdmissionSnapshot> BeginExamination();
  void EndExamination();

  // Takes out the groups that are too old to be trained on `version`: with the batch of step
  // `version` taken, no such group is admitted any more, so that none can stay held for ever.
  // Waits, at most until `deadline`, for an examination that began before that.
  absl::StatusOr<std::vector<RolloutGroup>> TakeStale(uint64_t version, absl::Time deadline);

  // The answer that this attempt's submit had before, if it is remembered.
  std::optional<v1::SubmitGroupReply> Remembered(uint64_t group_index, uint32_t attempt) const;
  void Remember(uint64_t group_index, uint32_t attempt, const v1::SubmitGroupReply& answer);

  // Keeps an admitted group. A group_index that is held already is passed over.
  void Hold(RolloutGroup group);
  // What the orchestrator said of the open step.
  void NoteProgress(const v1::StepProgress& progress);

  size_t held() const;

  // Waits until the batch of `step` is complete (DecideBatch) and takes its groups out. Called by
  // one thread. Returns: DeadlineExceeded, with how far the step is; Cancelled once `stop` is
  // raised.
  absl::StatusOr<ClosedBatch> AwaitBatch(uint64_t step, absl::Time deadline, base::StopToken* stop);

 private:
  BatchDecision Decide(uint64_t step) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  ClosedBatch Take(const BatchDecision& decision, uint64_t step)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatchRules rules_;
  base::Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::optional<AdmissionSnapshot> snapshot_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint64_t> examining_version_ ABSL_GUARDED_BY(mutex_);
  std::vector<RolloutGroup> groups_ ABSL_GUARDED_BY(mutex_);
  StepBound bound_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  using AnswerKey = std::pair<uint64_t, uint32_t>;
  std::map<AnswerKey, v1::SubmitGroupReply> answers_ ABSL_GUARDED_BY(mutex_);
  std::deque<AnswerKey> answer_order_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::learner
