// What happens by itself, what others may look at, and how the run ends.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/convert.h"
#include "orchestrator/coordinator.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "services/config/injection_plan.h"

namespace temper::orchestrator {
namespace {

constexpr absl::Duration kLongestSleep = absl::Seconds(5);
constexpr absl::Duration kMissingLogEvery = absl::Seconds(30);
constexpr absl::Duration kProgressLogEvery = absl::Minutes(1);
// Room that somebody makes within this is room in time. Without room nothing can be leased,
// admitted or committed, so a run that waited longer would only seem to live.
constexpr absl::Duration kFullDiskPatience = absl::Seconds(10);
// Members join within seconds of the orchestrator's start; before that nobody being there says
// nothing. Also how long a supervisor may take to ask how the run ended.
constexpr absl::Duration kLinger = absl::Seconds(5);

}  // namespace

void Coordinator::ExpireMembers(absl::Time now) {
  for (const std::string& id : SilentMembers(members_, now, plan_.member_timeout)) {
    const Member member = members_.at(id);
    absl::Status status = ReleaseHeld(member, Ending::kLeaseExpired, "the worker fell silent");
    if (status.ok()) status = options_.store->DeleteMember(id);
    if (!status.ok()) {
      base::LogWarning("member_not_removed", {{"member", id}, {"status", status.ToString()}});
      continue;
    }
    options_.files->Event("gone",
                          {{"role", RoleName(member.role)},
                           {"member", id},
                           {"silent_seconds", absl::ToDoubleSeconds(now - member.last_heard)}});
    members_.erase(id);
  }
}

void Coordinator::ExpireLeases(absl::Time now) {
  absl::Status status;
  for (const AttemptId& id : ledger_->Expired(now)) {
    const absl::Time armed_at = ledger_->ArmedAt(id);
    status.Update(EndAttempts({id}, Ending::kLeaseExpired,
                              ExpiryReason(armed_at, now, plan_.lease_duration)));
  }
  for (uint64_t item : evals_->Expired(now)) {
    status.Update(FailItem(item, Ending::kLeaseExpired,
                           ExpiryReason(evals_->ArmedAt(item), now, plan_.lease_duration)));
  }
  if (!status.ok()) base::LogWarning("leases_not_expired", {{"status", status.ToString()}});
}

void Coordinator::WatchWorkers(absl::Time now) {
  const bool needed = ended_ == Ended::kNo && !manifests_.empty() && !IsComplete() &&
                      (plan_.step.groups_per_step > 0 || evals_->open());
  if (!needed || CountAlive(members_, Role::kRolloutWorker, now, plan_.member_timeout) > 0) {
    worker_seen_ = now;
    return;
  }
  const absl::Duration missing = now - worker_seen_;
  if (missing >= plan_.no_worker_timeout) {
    const absl::Status status =
        End(Ended::kFailed, absl::StrCat("no rollout worker for ", absl::FormatDuration(missing)));
    if (!status.ok()) base::LogWarning("run_not_ended", {{"status", status.ToString()}});
    return;
  }
  if (missing < kMissingLogEvery || now - worker_missing_logged_ < kMissingLogEvery) return;
  worker_missing_logged_ = now;
  base::LogWarning("no_rollout_worker",
                   {{"seconds", absl::ToDoubleSeconds(missing)},
                    {"fails_after_seconds", absl::ToDoubleSeconds(plan_.no_worker_timeout)}});
}

void Coordinator::WatchDisk(absl::Time now) {
  const absl::Status& full = options_.store->full();
  if (full.ok() || ended_ != Ended::kNo) {
    full_since_ = absl::InfiniteFuture();
    return;
  }
  if (full_since_ == absl::InfiniteFuture()) {
    full_since_ = now;
    base::LogError("disk_full",
                   {{"status", full.ToString()},
                    {"fails_after_seconds", absl::ToDoubleSeconds(kFullDiskPatience)}});
  }
  if (now - full_since_ < kFullDiskPatience) return;
  // Nothing may have been written since room was made.
  if (options_.store->ProbeRoom().ok()) return;
  const absl::Status status = End(Ended::kFailed, std::string(full.message()));
  if (!status.ok()) base::LogWarning("run_not_ended", {{"status", status.ToString()}});
}

void Coordinator::WatchTraining(absl::Time now) {
  if (ended_ != Ended::kNo || now - progress_seen_ < kProgressLogEvery ||
      now - progress_missing_logged_ < kProgressLogEvery) {
    return;
  }
  progress_missing_logged_ = now;
  const StepSnapshot step = Step();
  base::LogWarning("no_progress", {{"seconds", absl::ToDoubleSeconds(now - progress_seen_)},
                                   {"state", v1::RunState_Name(State())},
                                   {"step", ledger_->open_step()},
                                   {"unexamined", step.unexamined},
                                   {"kept", step.kept},
                                   {"no_work", last_no_work_}});
}

absl::Time Coordinator::Tick() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = Now();
  ExpireMembers(now);
  ExpireLeases(now);
  WatchDisk(now);
  WatchWorkers(now);
  WatchTraining(now);
  RefreshMetrics(now);
  return std::min({NextSilence(members_, plan_.member_timeout) + absl::Milliseconds(1),
                   ledger_->NextExpiry(), evals_->NextExpiry(), ledger_->NextReady(now),
                   evals_->NextReady(now), now + kLongestSleep});
}

absl::Status Coordinator::EndLeftovers() {
  std::vector<AttemptEnd> ends;
  for (const AttemptId& id : ledger_->AllOpen()) {
    ends.push_back({id, Ending::kDrained, "all steps are done", /*lease_again=*/false, Now()});
  }
  return ends.empty() ? absl::OkStatus() : ledger_->End(ends);
}

absl::StatusOr<std::optional<SummaryInputs>> Coordinator::SummaryDue() {
  absl::MutexLock lock(&mutex_);
  if (!summary_json_.empty() || (ended_ == Ended::kNo && !IsComplete())) return std::nullopt;
  // A run that was stopped or has failed goes on with what it has; its next timeline ends it.
  if (ended_ == Ended::kNo) TEMPER_RETURN_IF_ERROR(EndLeftovers());
  SummaryInputs inputs;
  inputs.run_id = options_.run_id;
  inputs.state = ended_ == Ended::kStopped  ? "stopped"
                 : ended_ == Ended::kFailed ? "failed"
                                            : "finished";
  inputs.failure_reason = end_reason_;
  inputs.seed = plan_.config.seed();
  inputs.config_fingerprint = plan_.fingerprint;
  inputs.reward_rule = plan_.config.reward().rule();
  inputs.error_type = plan_.config.trainer().noisy_ops().error_type();
  inputs.injection = config::InjectionName(plan_.config);
  inputs.timeline = ledger_->timeline();
  inputs.steps_closed = ledger_->steps_closed();
  inputs.planned_steps = plan_.step.planned_steps;
  inputs.groups_opened = ledger_->cursor();
  inputs.accounting = ledger_->accounting();
  inputs.wall_time = Now() - started_at_;
  TEMPER_ASSIGN_OR_RETURN(const std::vector<CommitRow> commits, options_.store->Commits());
  inputs.steps_skipped = std::count_if(commits.begin(), commits.end(),
                                       [](const CommitRow& commit) { return commit.skipped; });
  TEMPER_ASSIGN_OR_RETURN(inputs.evaluations, evals_->Results());
  return inputs;
}

absl::Status Coordinator::SummaryWritten(const std::string& summary_json) {
  absl::MutexLock lock(&mutex_);
  if (ended_ == Ended::kNo) {
    TEMPER_RETURN_IF_ERROR(options_.store->PutFact("summary", summary_json));
    TEMPER_RETURN_IF_ERROR(End(Ended::kFinished, "all steps and evaluations are done"));
  }
  summary_json_ = summary_json;
  summarized_at_ = Now();
  return absl::OkStatus();
}

bool Coordinator::MayExit() {
  absl::MutexLock lock(&mutex_);
  if (ended_ == Ended::kNo || summary_json_.empty() || !members_.empty()) return false;
  const absl::Time now = Now();
  return now - born_ >= kLinger && (end_told_ || now - summarized_at_ >= kLinger);
}

bool Coordinator::NobodyWaits() {
  absl::MutexLock lock(&mutex_);
  return ended_ == Ended::kNo || members_.empty();
}

v1::RunState Coordinator::state() {
  absl::MutexLock lock(&mutex_);
  return State();
}

std::vector<v1::Peer> Coordinator::LiveMembers() {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Peer> live;
  for (v1::Peer& peer : Peers(Now())) {
    if (peer.healthy()) live.push_back(std::move(peer));
  }
  return live;
}

absl::Status Coordinator::VerifyAccounting() {
  absl::MutexLock lock(&mutex_);
  const absl::Status status = ledger_->VerifyAccounting();
  options_.metrics->accounting_violation.Set(status.ok() ? 0 : 1);
  return status;
}

void Coordinator::FillEvaluations(v1::GetStatusReply* reply) {
  const absl::StatusOr<std::vector<EvalResult>> results = evals_->Results();
  if (!results.ok()) return;  // a look, not an act: what is known is shown
  for (const EvalResult& result : *results) {
    v1::EvaluationProgress* row = reply->add_evaluations();
    row->set_version(result.version);
    row->set_error_scale(result.error_scale);
    row->set_noise_seed(result.noise_seed);
    row->set_injected(result.injected);
    row->set_questions(result.questions);
    row->set_done(static_cast<uint32_t>(result.outcomes.size()));
    double sum = 0;
    for (const OutcomeRow& outcome : result.outcomes) sum += outcome.accuracy;
    if (!result.outcomes.empty()) {
      row->set_accuracy(sum / static_cast<double>(result.outcomes.size()));
    }
  }
}

absl::Status Coordinator::GetStatus(const v1::GetStatusRequest& request,
                                    v1::GetStatusReply* reply) {
  absl::MutexLock lock(&mutex_);
  reply->set_run_id(options_.run_id);
  reply->set_state(State());
  reply->set_state_reason(end_reason_);
  reply->set_timeline(ledger_->timeline());
  reply->set_step(ledger_->steps_closed());
  reply->set_planned_steps(plan_.step.planned_steps);
  for (v1::Peer& peer : Peers(Now())) *reply->add_members() = std::move(peer);
  const Accounting& accounting = ledger_->accounting();
  auto& attempts = *reply->mutable_attempts();
  attempts["attempts_leased"] = accounting.attempts_leased;
  attempts["leased"] = accounting.leased;
  attempts["admitted"] = accounting.admitted;
  for (Ending ending : AllEndings()) attempts[EndingName(ending)] = accounting.Ended(ending);
  for (std::string& line : options_.files->MetricsAfter(request.after_step())) {
    reply->add_metrics_json(std::move(line));
  }
  FillEvaluations(reply);
  for (const auto& [role, count] : desired_) (*reply->mutable_desired())[RoleName(role)] = count;
  reply->set_summary_json(summary_json_);
  if (ended_ != Ended::kNo && !summary_json_.empty()) end_told_ = true;
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
