#include "learner/submission_desk.h"

#include <utility>

#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/member/submission_checksum.h"

namespace temper::learner {

SubmissionDesk::SubmissionDesk(SubmissionDeskOptions options, GroupStore* store,
                               OrchestratorLink* orchestrator, LearnerMetrics* metrics)
    : options_(std::move(options)),
      store_(store),
      orchestrator_(orchestrator),
      metrics_(metrics),
      thread_([this] { Run(); }) {}

SubmissionDesk::~SubmissionDesk() {
  queue_.Close();
  thread_.join();
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
  while (true) {
    absl::StatusOr<Queued> next = queue_.Pop(absl::Now() + absl::Seconds(60));
    if (absl::IsCancelled(next.status())) return;
    if (!next.ok()) continue;
    const absl::StatusOr<v1::SubmitGroupReply> answer = Consider(next->submit);
    store_->EndExamination();
    next->answer(answer);
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
    TEMPER_ASSIGN_OR_RETURN(answer, Admit(submit, decision));
    store_->Remember(ref.group_index(), ref.attempt(), answer);
  }
  metrics_->Submitted(VerdictName(answer.verdict()));
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
