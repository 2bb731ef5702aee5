// What the learner says: timelines, admissions, commits, versions.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/convert.h"
#include "orchestrator/coordinator.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

// Versions whose manifests are kept: those a worker may be pulling or sampling with.
constexpr uint64_t kManifestsKept = 2;

std::string BeginMark(const v1::BeginTimelineRequest& request) {
  return absl::StrCat(request.member_id(), "/", request.incarnation(), "/", request.resume_step());
}

CommitRow RowOf(const v1::CommitStepRequest& request, const std::string& metrics, absl::Time now) {
  CommitRow row;
  row.timeline = request.timeline();
  row.step = request.step();
  row.skipped = request.skipped();
  row.update_seconds = request.update_seconds();
  row.metrics_json = metrics;
  row.closed_at = now;
  return row;
}

}  // namespace

void Coordinator::FillProgress(v1::StepProgress* progress) const {
  const StepSnapshot step = Step();
  const CloseDecision close = DecideClose(plan_.step, step);
  const uint32_t per_round = std::max(1u, plan_.step.groups_per_step);
  progress->set_step(ledger_->open_step());
  progress->set_examined(step.examined);
  progress->set_kept(step.kept);
  progress->set_round(plan_.step.max_staleness == 0 ? step.rounds_opened
                                                    : 1 + step.examined / per_round);
  progress->set_close_step(close.close);
  progress->set_reason(close.reason);
}

absl::Status Coordinator::AdmitGroup(const v1::AdmitGroupRequest& request,
                                     v1::AdmitGroupReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.ref().run_id()));
  TEMPER_RETURN_IF_ERROR(CheckLearner(request.learner_incarnation()));
  const AttemptId id = IdOf(request.ref());
  TEMPER_ASSIGN_OR_RETURN(std::optional<AttemptRow> attempt, ledger_->Find(id));
  if (!attempt) {
    reply->set_reason("no such attempt");
  } else if (attempt->state == AttemptState::kLeased) {
    const bool kept = request.examination() == v1::EXAMINATION_KEPT;
    switch (request.examination()) {
      case v1::EXAMINATION_KEPT:
      case v1::EXAMINATION_ZERO_VARIANCE:
        TEMPER_RETURN_IF_ERROR(ledger_->Admit(
            id, kept ? Examination::kKept : Examination::kZeroVariance, request.reason()));
        options_.metrics->filter_examined.Increment();
        if (kept) options_.metrics->filter_kept.Increment();
        reply->set_admitted(true);
        break;
      case v1::EXAMINATION_STALE:
        TEMPER_RETURN_IF_ERROR(EndAttempts({id}, Ending::kDroppedStale, request.reason()));
        reply->set_ending(v1::ENDING_DROPPED_STALE);
        break;
      case v1::EXAMINATION_REFUSED:
        TEMPER_RETURN_IF_ERROR(EndAttempts({id}, Ending::kRefused, request.reason()));
        reply->set_ending(v1::ENDING_REFUSED);
        break;
      default:
        return absl::InvalidArgumentError("no examination");
    }
    reply->set_reason(request.reason());
  } else {
    // A second message about it: the same answer as the first got.
    reply->set_admitted(attempt->state == AttemptState::kAdmitted || attempt->closed_step > 0);
    reply->set_ending(static_cast<v1::Ending>(attempt->ending));
    reply->set_reason(attempt->detail);
    if (attempt->ending == Ending::kRewound) reply->set_admitted(false);
  }
  options_.metrics->SetAttempts(ledger_->accounting());
  FillProgress(reply->mutable_progress());
  return absl::OkStatus();
}

absl::Status Coordinator::CloseStep(const v1::CommitStepRequest& request) {
  if (request.policy_version() != request.step()) {
    return absl::InvalidArgumentError(
        absl::StrCat("step ", request.step(), " closes with version ", request.policy_version()));
  }
  if (request.step() > plan_.step.planned_steps) {
    return absl::FailedPreconditionError(
        absl::StrCat("step ", request.step(), " of ", plan_.step.planned_steps, " planned"));
  }
  std::vector<ClosedAttempt> closed;
  Accounting since = ledger_->SinceCommit();
  for (const v1::ClosedAttempt& entry : request.closed()) {
    closed.push_back({entry.group_index(), entry.attempt(), EndingFromNumber(entry.ending())});
    ++since.Ended(closed.back().ending);
  }
  TEMPER_ASSIGN_OR_RETURN(const std::string metrics, MetricsLine(request.metrics_json(), since));
  const absl::Time now = Now();
  TEMPER_RETURN_IF_ERROR(ledger_->Commit(RowOf(request, metrics, now), closed));
  progress_seen_ = now;
  options_.files->AppendMetrics(metrics);
  options_.files->Event("step_committed", {{"step", request.step()},
                                           {"timeline", request.timeline()},
                                           {"closed", closed.size()},
                                           {"skipped", request.skipped()},
                                           {"update_seconds", request.update_seconds()}});
  return absl::OkStatus();
}

absl::Status Coordinator::CommitStep(const v1::CommitStepRequest& request,
                                     v1::CommitStepReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  TEMPER_ASSIGN_OR_RETURN(const std::optional<CommitRow> known,
                          options_.store->FindCommit(request.timeline(), request.step()));
  if (request.timeline() != ledger_->timeline() || (known && known->rewound_by != 0)) {
    return absl::AbortedError(absl::StrCat("commit of step ", request.step(), " of timeline ",
                                           request.timeline(), ", this is timeline ",
                                           ledger_->timeline()));
  }
  TEMPER_RETURN_IF_ERROR(CheckLearner(request.learner_incarnation()));
  if (known) {
    reply->set_already(true);
  } else {
    TEMPER_RETURN_IF_ERROR(CloseStep(request));
  }
  reply->set_state(State());
  RefreshMetrics(Now());
  return absl::OkStatus();
}

absl::Status Coordinator::ApplyLastCommit(const v1::BeginTimelineRequest& request) {
  const v1::CommitStepRequest& commit = request.last_commit();
  if (!request.has_last_commit() || commit.step() <= ledger_->steps_closed()) {
    return absl::OkStatus();
  }
  TEMPER_RETURN_IF_ERROR(CheckRun(commit.run_id()));
  if (commit.step() != request.resume_step()) {
    return absl::InvalidArgumentError(absl::StrCat("resumes after step ", request.resume_step(),
                                                   " with the commit of step ", commit.step()));
  }
  return CloseStep(commit);
}

absl::Status Coordinator::BeginTimeline(const v1::BeginTimelineRequest& request,
                                        v1::BeginTimelineReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_ASSIGN_OR_RETURN(
      Member * learner, CheckMember(request.run_id(), request.member_id(), request.incarnation()));
  if (learner->role != Role::kLearner) {
    return absl::InvalidArgumentError(absl::StrCat(learner->member_id, " is no learner"));
  }
  if (ended_ != Ended::kNo) return absl::FailedPreconditionError("the run has ended");
  TEMPER_ASSIGN_OR_RETURN(const std::string mark, options_.store->Fact("timeline_begun_by"));
  if (mark == BeginMark(request)) {
    reply->set_timeline(ledger_->timeline());
    return absl::OkStatus();
  }
  if (request.incarnation() <= learner_incarnation_) {
    return absl::FailedPreconditionError(
        absl::StrCat("learner incarnation ", request.incarnation(), " is not newer than ",
                     learner_incarnation_, ", which began timeline ", ledger_->timeline()));
  }
  TEMPER_RETURN_IF_ERROR(ApplyLastCommit(request));
  TEMPER_ASSIGN_OR_RETURN(
      const RewindPlan plan,
      ledger_->BeginTimeline(request.resume_step(), [&](const RewindPlan&) -> absl::Status {
        mutex_.AssertHeld();  // the ledger calls this before BeginTimeline returns
        TEMPER_RETURN_IF_ERROR(evals_->Rewind(request.resume_step()));
        TEMPER_RETURN_IF_ERROR(options_.store->DeleteManifestsBelow(UINT64_MAX >> 1));
        TEMPER_RETURN_IF_ERROR(
            options_.store->PutNumber("learner_incarnation", request.incarnation()));
        return options_.store->PutFact("timeline_begun_by", BeginMark(request));
      }));
  TEMPER_RETURN_IF_ERROR(evals_->Reload(Now(), plan_.lease_duration));
  learner_incarnation_ = request.incarnation();
  manifests_.clear();
  first_acknowledged_.clear();
  groups_ = {};
  items_let_go_.clear();
  const uint64_t next = ledger_->timeline();
  options_.files->RewindMetrics(request.resume_step(), next);
  options_.files->Event("timeline_begun", {{"timeline", next},
                                           {"resume_step", request.resume_step()},
                                           {"learner", request.member_id()},
                                           {"incarnation", request.incarnation()},
                                           {"reason", plan.reason}});
  progress_seen_ = Now();
  reply->set_timeline(next);
  RefreshMetrics(Now());
  return absl::OkStatus();
}

absl::Status Coordinator::MaySnapshot(const v1::SnapshotLedgerRequest& request) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  TEMPER_RETURN_IF_ERROR(CheckTimeline("a copy of the ledger", request.timeline()));
  return CheckLearner(request.learner_incarnation());
}

absl::Status Coordinator::PublishManifest(const v1::PublishManifestRequest& request,
                                          v1::PublishManifestReply* reply) {
  absl::MutexLock lock(&mutex_);
  const v1::Manifest& manifest = request.manifest();
  TEMPER_RETURN_IF_ERROR(CheckRun(manifest.run_id()));
  TEMPER_RETURN_IF_ERROR(
      CheckTimeline(absl::StrCat("version ", manifest.version()), manifest.timeline()));
  TEMPER_RETURN_IF_ERROR(CheckLearner(request.learner_incarnation()));
  if (auto known = manifests_.find(manifest.version()); known != manifests_.end()) {
    if (known->second.base_weights_hash() != manifest.base_weights_hash()) {
      return absl::FailedPreconditionError(
          absl::StrCat("version ", manifest.version(), " is out with other weights"));
    }
    reply->set_state(State());
    return absl::OkStatus();
  }
  if (manifest.version() != ledger_->steps_closed()) {
    return absl::FailedPreconditionError(absl::StrCat("version ", manifest.version(),
                                                      " cannot be "
                                                      "out while ",
                                                      ledger_->steps_closed(),
                                                      " steps are closed"));
  }
  if (!manifests_.empty() && evals_->OpenOfOthers(manifest.version())) {
    return absl::UnavailableError(
        absl::StrCat("version ", manifests_.rbegin()->first, " is being evaluated; try again"));
  }
  TEMPER_RETURN_IF_ERROR(RecordManifest(manifest));
  reply->set_state(State());
  return absl::OkStatus();
}

absl::Status Coordinator::RecordManifest(const v1::Manifest& manifest) {
  const uint64_t version = manifest.version();
  const EvalDue due = DecideEvalDue(plan_.eval, version);
  const std::vector<EvalItemSpec> items =
      due.due ? PlanEvalItems(plan_.eval, version) : std::vector<EvalItemSpec>{};
  const uint64_t kept = plan_.step.max_staleness + kManifestsKept;
  std::vector<uint64_t> overtaken;
  for (auto known = manifests_.begin(); manifests_.size() + 1 > kept + overtaken.size(); ++known) {
    overtaken.push_back(known->first);
  }
  // Items and manifest together: a version that is out without its items would not be held still,
  // and items of a version that is not out could be leased by nobody.
  TEMPER_RETURN_IF_ERROR(evals_->AddItems(items, [&]() -> absl::Status {
    if (!overtaken.empty()) {
      TEMPER_RETURN_IF_ERROR(options_.store->DeleteManifestsBelow(overtaken.back() + 1));
    }
    return options_.store->PutManifest(version, manifest.SerializeAsString());
  }));
  manifests_[version] = manifest;
  for (uint64_t old : overtaken) {
    first_acknowledged_.erase(old);
    manifests_.erase(old);
  }
  progress_seen_ = Now();
  options_.files->Event("version_out", {{"version", version},
                                        {"timeline", manifest.timeline()},
                                        {"aqn_sigma", manifest.aqn().sigma()},
                                        {"comm_epoch", manifest.comm_epoch()}});
  if (evals_->open()) {
    options_.files->Event("eval_started", {{"version", version}, {"due", due.reason}});
  }
  RefreshMetrics(Now());
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
