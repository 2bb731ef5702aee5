// The coordinator's start, its members, and what the other files of the class share.

#include "orchestrator/coordinator.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "orchestrator/convert.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

std::string DesiredFact(Role role) { return absl::StrCat("desired_", RoleName(role)); }

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options)
    : options_(std::move(options)),
      plan_(options_.plan),
      born_(options_.clock->Now()),
      order_(plan_.config.seed(), plan_.train->size().value_or(0)) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(CoordinatorOptions options) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator(std::move(options)));
  TEMPER_RETURN_IF_ERROR(coordinator->Load());
  return coordinator;
}

absl::Status Coordinator::Load() {
  absl::MutexLock lock(&mutex_);
  LedgerStore* store = options_.store;
  const absl::Time now = Now();
  TEMPER_ASSIGN_OR_RETURN(ledger_, Ledger::Open(store, now, plan_.lease_duration));
  TEMPER_ASSIGN_OR_RETURN(evals_, EvalLedger::Open(store, now, plan_.lease_duration));
  TEMPER_ASSIGN_OR_RETURN(members_, store->LoadMembers(now));
  TEMPER_ASSIGN_OR_RETURN(learner_incarnation_, store->Number("learner_incarnation"));
  TEMPER_ASSIGN_OR_RETURN(const auto manifests, store->Manifests());
  for (const auto& [version, bytes] : manifests) {
    if (!manifests_[version].ParseFromString(bytes)) {
      return absl::DataLossError(absl::StrCat("ledger: the manifest of version ", version));
    }
  }
  desired_ = plan_.desired;
  for (auto& [role, count] : desired_) {
    TEMPER_ASSIGN_OR_RETURN(const std::string recorded, store->Fact(DesiredFact(role)));
    if (!recorded.empty() && !absl::SimpleAtoi(recorded, &count)) {
      return absl::DataLossError(
          absl::StrCat("ledger: ", DesiredFact(role), " is '", recorded, "', not a number"));
    }
  }
  TEMPER_RETURN_IF_ERROR(LoadEnd());
  TEMPER_ASSIGN_OR_RETURN(uint64_t started, store->Number("started_at"));
  if (started == 0) {
    started = static_cast<uint64_t>(absl::ToUnixNanos(now));
    TEMPER_RETURN_IF_ERROR(store->PutNumber("started_at", started));
  }
  started_at_ = absl::FromUnixNanos(static_cast<int64_t>(started));
  worker_seen_ = progress_seen_ = now;
  for (uint64_t timeline = 2; timeline <= ledger_->timeline(); ++timeline) {
    TEMPER_ASSIGN_OR_RETURN(const std::vector<CommitRow> cut_off, store->Commits(timeline));
    std::vector<std::string> lines;
    for (const CommitRow& commit : cut_off) lines.push_back(commit.metrics_json);
    options_.files->RestoreRewound(timeline, lines);
  }
  RefreshMetrics(now);
  return absl::OkStatus();
}

absl::Status Coordinator::LoadEnd() {
  LedgerStore* store = options_.store;
  TEMPER_ASSIGN_OR_RETURN(const uint64_t ended, store->Number("ended"));
  if (ended > static_cast<uint64_t>(Ended::kFailed)) {
    return absl::DataLossError(absl::StrCat("ledger: ended is ", ended));
  }
  const Ended recorded = static_cast<Ended>(ended);
  if (options_.go_on && (recorded == Ended::kStopped || recorded == Ended::kFailed)) {
    return store->PutNumber("ended", 0);
  }
  ended_ = recorded;
  if (ended_ == Ended::kNo) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(end_reason_, store->Fact("end_reason"));
  // Of a run that did not finish the summary is written again.
  if (ended_ != Ended::kFinished) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(summary_json_, store->Fact("summary"));
  summarized_at_ = Now();
  return absl::OkStatus();
}

absl::Status Coordinator::CheckRun(const std::string& run_id) const {
  if (run_id == options_.run_id) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("this orchestrator leads run ", options_.run_id,
                                                    ", the message is of run ",
                                                    run_id.empty() ? "(none)" : run_id));
}

absl::StatusOr<Member*> Coordinator::CheckMember(const std::string& run_id,
                                                 const std::string& member_id,
                                                 uint64_t incarnation) {
  TEMPER_RETURN_IF_ERROR(CheckRun(run_id));
  auto member = members_.find(member_id);
  if (member == members_.end() || member->second.incarnation != incarnation) {
    return absl::NotFoundError(absl::StrCat(member_id, " of incarnation ", incarnation,
                                            " is not a member of run ", run_id));
  }
  member->second.last_heard = Now();
  return &member->second;
}

absl::Status Coordinator::CheckLearner(uint64_t incarnation) const {
  if (incarnation == learner_incarnation_) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("learner incarnation ", incarnation, " does not lead timeline ",
                   ledger_->timeline(), ", incarnation ", learner_incarnation_, " does"));
}

absl::Status Coordinator::CheckTimeline(std::string_view what, uint64_t timeline) const {
  if (timeline == ledger_->timeline()) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(std::string(what), " of timeline ", timeline,
                                         ", this is timeline ", ledger_->timeline()));
}

v1::RunState Coordinator::State() const {
  switch (ended_) {
    case Ended::kFinished:
      return v1::RUN_STATE_FINISHED;
    case Ended::kStopped:
      return v1::RUN_STATE_STOPPED;
    case Ended::kFailed:
      return v1::RUN_STATE_FAILED;
    case Ended::kNo:
      break;
  }
  if (manifests_.empty()) return v1::RUN_STATE_STARTING;
  return evals_->open() ? v1::RUN_STATE_EVALUATING : v1::RUN_STATE_TRAINING;
}

bool Coordinator::IsComplete() const {
  return ended_ == Ended::kNo && !manifests_.empty() && !evals_->open() &&
         ledger_->steps_closed() >= plan_.step.planned_steps &&
         manifests_.rbegin()->first >= plan_.step.planned_steps;
}

std::vector<v1::Peer> Coordinator::Peers(absl::Time now) const {
  std::vector<v1::Peer> peers;
  for (const auto& [id, member] : members_) {
    peers.push_back(PeerOf(member, IsAlive(member, now, plan_.member_timeout)));
  }
  return peers;
}

void Coordinator::RefreshMetrics(absl::Time now) {
  OrchestratorMetrics& metrics = *options_.metrics;
  metrics.SetAttempts(ledger_->accounting());
  for (Role role : {Role::kRewardServer, Role::kLearner, Role::kRolloutWorker, Role::kSupervisor}) {
    metrics.SetMembers(role, CountAlive(members_, role, now, plan_.member_timeout));
  }
  metrics.step.Set(static_cast<double>(ledger_->steps_closed()));
  if (manifests_.empty()) return;
  const uint64_t latest = manifests_.rbegin()->first;
  const uint64_t timeline = ledger_->timeline();
  metrics.weights_version.Set(static_cast<double>(latest));
  metrics.workers_behind.Set(
      static_cast<double>(std::count_if(members_.begin(), members_.end(), [&](const auto& entry) {
        const Member& member = entry.second;
        return member.role == Role::kRolloutWorker &&
               !(member.has_version && member.acknowledged_timeline == timeline &&
                 member.acknowledged_version == latest);
      })));
}

absl::Status Coordinator::End(Ended ended, const std::string& reason) {
  if (ended_ != Ended::kNo) return absl::OkStatus();
  const absl::Status stored =
      options_.store->Transact(SqlDatabase::Durability::kDurable, [&]() -> absl::Status {
        TEMPER_RETURN_IF_ERROR(options_.store->PutFact("end_reason", reason));
        return options_.store->PutNumber("ended", static_cast<uint64_t>(ended));
      });
  // A run that was stopped or has failed can be resumed anyway, so it can end without a record: a
  // full disk must not keep it from that.
  if (ended == Ended::kFinished) TEMPER_RETURN_IF_ERROR(stored);
  if (!stored.ok()) base::LogWarning("end_not_recorded", {{"status", stored.ToString()}});
  ended_ = ended;
  end_reason_ = reason;
  options_.files->Event("run_ended", {{"state", v1::RunState_Name(State())}, {"reason", reason}});
  return absl::OkStatus();
}

absl::Status Coordinator::Join(const v1::JoinRequest& request, v1::JoinReply* reply) {
  absl::MutexLock lock(&mutex_);
  if (!request.run_id().empty()) TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  if (request.config_fingerprint() != 0 && request.config_fingerprint() != plan_.fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat("configuration fingerprint ",
                                                      request.config_fingerprint(), ", run ",
                                                      options_.run_id, " has ", plan_.fingerprint));
  }
  TEMPER_ASSIGN_OR_RETURN(Member member, MemberOf(request));
  if (ended_ != Ended::kNo && member.role != Role::kSupervisor) {
    return absl::FailedPreconditionError(
        absl::StrCat("run ", options_.run_id, " has ended: ", end_reason_));
  }
  const JoinDecision decision =
      DecideJoin(members_, member.member_id, member.role, member.incarnation);
  switch (decision.verdict) {
    case JoinVerdict::kOutdated:
    case JoinVerdict::kRoleTaken:
      return absl::FailedPreconditionError(decision.reason);
    case JoinVerdict::kReplaces:
      TEMPER_RETURN_IF_ERROR(
          ReleaseHeld(members_.at(member.member_id), Ending::kDrained, decision.reason));
      [[fallthrough]];
    case JoinVerdict::kNew:
      member.last_heard = Now();
      TEMPER_RETURN_IF_ERROR(options_.store->PutMember(member));
      members_[member.member_id] = member;
      options_.files->Event("join", {{"role", RoleName(member.role)},
                                     {"member", member.member_id},
                                     {"incarnation", member.incarnation},
                                     {"address", member.address},
                                     {"reason", decision.reason}});
      break;
    case JoinVerdict::kAgain:
      members_.at(member.member_id).last_heard = Now();
      break;
  }
  reply->set_run_id(options_.run_id);
  reply->set_timeline(ledger_->timeline());
  *reply->mutable_config() = plan_.config;
  reply->set_config_fingerprint(plan_.fingerprint);
  reply->set_heartbeat_seconds(absl::ToDoubleSeconds(plan_.heartbeat_interval));
  for (v1::Peer& peer : Peers(Now())) *reply->add_peers() = std::move(peer);
  RefreshMetrics(Now());
  return absl::OkStatus();
}

absl::Status Coordinator::Heartbeat(const v1::HeartbeatRequest& request,
                                    v1::HeartbeatReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_ASSIGN_OR_RETURN(
      Member * member, CheckMember(request.run_id(), request.member_id(), request.incarnation()));
  const absl::Time now = Now();
  const AttemptHolder holder{member->member_id, member->incarnation};
  for (const v1::GroupRef& ref : request.holding()) {
    ledger_->Renew(IdOf(ref), holder, now, plan_.lease_duration);
  }
  for (uint64_t item : evals_->HeldBy(holder.worker, holder.incarnation)) {
    if (items_let_go_.count(item) > 0) continue;
    evals_->Renew(item, holder.worker, holder.incarnation, now, plan_.lease_duration);
  }
  reply->set_state(State());
  reply->set_state_reason(end_reason_);
  reply->set_drain(ended_ != Ended::kNo);
  reply->set_timeline(ledger_->timeline());
  reply->set_has_version(!manifests_.empty());
  if (!manifests_.empty()) reply->set_latest_version(manifests_.rbegin()->first);
  reply->set_comm_epoch(groups_.current_epoch());
  reply->set_ended_comm_epoch(groups_.ended);
  const bool supervisor = member->role == Role::kSupervisor;
  const bool learner = member->role == Role::kLearner;
  for (v1::Peer& peer : Peers(now)) {
    const bool server = peer.role() == v1::ROLE_REWARD_SERVER || peer.role() == v1::ROLE_LEARNER;
    // The learner leads the broadcast group, whose members are those workers that are alive.
    if (supervisor || server || (learner && peer.role() == v1::ROLE_ROLLOUT_WORKER)) {
      *reply->add_peers() = std::move(peer);
    }
  }
  if (supervisor) {
    for (const auto& [role, count] : desired_) (*reply->mutable_desired())[RoleName(role)] = count;
  }
  return absl::OkStatus();
}

absl::Status Coordinator::Leave(const v1::LeaveRequest& request, v1::LeaveReply*) {
  absl::MutexLock lock(&mutex_);
  auto member = members_.find(request.member_id());
  if (request.run_id() != options_.run_id || member == members_.end() ||
      member->second.incarnation != request.incarnation()) {
    return absl::OkStatus();
  }
  TEMPER_RETURN_IF_ERROR(ReleaseHeld(member->second, Ending::kDrained, "the worker left"));
  TEMPER_RETURN_IF_ERROR(options_.store->DeleteMember(member->first));
  options_.files->Event("leave",
                        {{"role", RoleName(member->second.role)}, {"member", member->first}});
  members_.erase(member);
  RefreshMetrics(Now());
  return absl::OkStatus();
}

absl::Status Coordinator::SetDesired(const v1::SetDesiredRequest& request, v1::SetDesiredReply*) {
  constexpr uint32_t kMostProcesses = 4096;
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  const Role role = RoleFromNumber(request.role());
  if (desired_.count(role) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the number of ", RoleName(role), " processes cannot be set"));
  }
  if (request.count() > kMostProcesses) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.count(), " processes; at most ", kMostProcesses));
  }
  TEMPER_RETURN_IF_ERROR(options_.store->PutFact(DesiredFact(role), absl::StrCat(request.count())));
  desired_[role] = request.count();
  options_.files->Event("desired", {{"role", RoleName(role)}, {"count", request.count()}});
  return absl::OkStatus();
}

absl::Status Coordinator::StopRun(const v1::StopRunRequest& request, v1::StopRunReply*) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  return End(request.failed() ? Ended::kFailed : Ended::kStopped, request.reason());
}

}  // namespace temper::orchestrator
