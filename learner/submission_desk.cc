#include "learner/submission_desk.h"

#include <algorithm>
#include <utility>

#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/member/names.h"
#include "services/member/submission_checksum.h"

namespace temper::learner {
namespace {

constexpr absl::Duration kLook = absl::Seconds(60);

// Whether a call that failed may have been carried out: no answer came.
bool MayHaveHappened(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

SubmissionDesk::SubmissionDesk(SubmissionDeskOptions options, GroupStore* store,
                               OrchestratorLink* orchestrator, LearnerMetrics* metrics)
    : options_(std::move(options)),
      store_(store),
      orchestrator_(orchestrator),
      metrics_(metrics),
      thread_([this] { Run(); }) {}

SubmissionDesk::~SubmissionDesk() {
  Close();
  thread_.join();
}

void SubmissionDesk::Close() {
  closing_ = true;
  queue_.Close();
}

void SubmissionDesk::Submit(v1::SubmitGroupRequest submit, SubmitAnswer answer) {
  Queued queued{std::move(submit), answer};
  const absl::Status pushed = queue_.Push(std::move(queued), absl::InfinitePast());
  if (!pushed.ok()) {
    answer(absl::UnavailableError(
        absl::StrCat("the learner cannot take a group now: ", pushed.message())));
  }
}

void SubmissionDesk::Run() {
  absl::Time settle_at = absl::InfiniteFuture();
  while (true) {
    absl::StatusOr<Queued> next = queue_.Pop(std::min(settle_at, absl::Now() + kLook));
    if (absl::IsCancelled(next.status())) return;
    if (next.ok()) Handle(*next);
    if (unsettled_.empty()) {
      settle_at = absl::InfiniteFuture();
    } else if (settle_at == absl::InfiniteFuture()) {
      settle_at = absl::Now() + options_.settle_every;
    } else if (absl::Now() >= settle_at) {
      Settle();
      settle_at = absl::Now() + options_.settle_every;
    }
  }
}

void SubmissionDesk::Handle(const Queued& queued) {
  if (closing_) return queued.answer(absl::UnavailableError("the learner stops"));
  const absl::StatusOr<v1::SubmitGroupReply> answer = Consider(queued.submit);
  store_->EndExamination();
  queued.answer(answer);
}

void SubmissionDesk::Settle() {
  while (!unsettled_.empty() && !closing_) {
    const auto first = unsettled_.begin();
    const auto& [group, attempt] = first->first;
    if (!store_->BeginExamination().has_value()) return;
    const absl::StatusOr<v1::SubmitGroupReply> answer =
        Admit(first->second.submit, first->second.decision);
    if (answer.ok()) store_->Remember(group, attempt, *answer);
    store_->EndExamination();
    if (MayHaveHappened(answer.status())) return;
    if (answer.ok()) metrics_->Submitted(member::VerdictName(answer->verdict()));
    metrics_->groups_held.Set(static_cast<double>(store_->held()));
    base::LogInfo("group_settled", {{"group", group},
                                    {"attempt", attempt},
                                    {"outcome", answer.ok() ? member::VerdictName(answer->verdict())
                                                            : answer.status().message()}});
    unsettled_.erase(first);
  }
}

absl::StatusOr<v1::SubmitGroupReply> SubmissionDesk::Consider(
    const v1::SubmitGroupRequest& submit) {
  const v1::GroupRef& ref = submit.ref();
  const std::optional<AdmissionSnapshot> snapshot = store_->BeginExamination();
  if (!snapshot.has_value()) return absl::FailedPreconditionError("no timeline is open yet");
  const AdmissionDecision decision =
      Examine(submit, member::SubmissionChecksum(submit), options_.rules, *snapshot);
  v1::SubmitGroupReply answer;
  if (decision.concluded) {
    answer.set_verdict(decision.verdict);
    answer.set_reason(decision.reason);
  } else if (std::optional<v1::SubmitGroupReply> before =
                 store_->Remembered(ref.group_index(), ref.attempt())) {
    return *before;
  } else {
    const AttemptKey key{ref.group_index(), ref.attempt()};
    absl::StatusOr<v1::SubmitGroupReply> admitted = Admit(submit, decision);
    if (MayHaveHappened(admitted.status())) {
      const bool room = unsettled_.size() < kQueueGroups;
      if (room) unsettled_.try_emplace(key, Unsettled{submit, decision});
    } else {
      unsettled_.erase(key);
    }
    TEMPER_ASSIGN_OR_RETURN(answer, std::move(admitted));
    store_->Remember(ref.group_index(), ref.attempt(), answer);
  }
  metrics_->Submitted(member::VerdictName(answer.verdict()));
  metrics_->groups_held.Set(static_cast<double>(store_->held()));
  if (answer.verdict() == v1::SUBMIT_VERDICT_REFUSED) {
    base::LogWarning("group_refused", {{"group", ref.group_index()},
                                       {"attempt", ref.attempt()},
                                       {"worker", submit.worker()},
                                       {"reason", answer.reason()}});
  }
  return answer;
}

absl::StatusOr<v1::SubmitGroupReply> SubmissionDesk::Admit(const v1::SubmitGroupRequest& submit,
                                                           const AdmissionDecision& decision) {
  v1::AdmitGroupRequest request;
  *request.mutable_ref() = submit.ref();
  request.set_learner_incarnation(options_.incarnation);
  request.set_examination(decision.examination);
  request.set_reason(decision.reason);
  TEMPER_ASSIGN_OR_RETURN(const v1::AdmitGroupReply reply,
                          orchestrator_->AdmitGroup(request, absl::Now() + options_.admit_timeout));
  const bool kept = decision.examination == v1::EXAMINATION_KEPT;
  const bool zero_variance = decision.examination == v1::EXAMINATION_ZERO_VARIANCE;
  if (reply.admitted() && (kept || zero_variance)) {
    RolloutGroup group = GroupFromProto(submit);
    group.zero_variance = zero_variance;
    store_->Hold(std::move(group));
  }
  if (reply.has_progress()) store_->NoteProgress(reply.progress());
  return AnswerFor(decision, reply);
}

}  // namespace temper::learner
