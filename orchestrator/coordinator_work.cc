// What rollout workers say: leases, hand-backs, evaluation results, acknowledged weights.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "orchestrator/convert.h"
#include "orchestrator/coordinator.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {

StepSnapshot Coordinator::Step() const {
  StepSnapshot step;
  step.steps_closed = ledger_->steps_closed();
  step.has_version = !manifests_.empty();
  if (step.has_version) step.latest_version = manifests_.rbegin()->first;
  step.rounds_opened = ledger_->rounds_opened();
  step.unexamined = ledger_->unexamined();
  step.kept = ledger_->kept();
  step.examined = ledger_->examined();
  return step;
}

WorkSnapshot Coordinator::Work(absl::Time now) const {
  WorkSnapshot work;
  if (ended_ == Ended::kFinished || IsComplete()) work.ended = "finished";
  if (ended_ == Ended::kStopped) work.ended = "stopped";
  if (ended_ == Ended::kFailed) work.ended = "failed";
  work.timeline = ledger_->timeline();
  work.reward_servers = CountAlive(members_, Role::kRewardServer, now, plan_.member_timeout);
  work.step = Step();
  work.ready_groups = ledger_->ReadyGroups(now);
  work.backing_off_groups = ledger_->BackingOff(now);
  work.evaluating = evals_->open();
  work.ready_item = evals_->ReadyItem(now);
  work.backing_off_items = evals_->BackingOff(now);
  return work;
}

absl::Status Coordinator::AcquireWork(const v1::AcquireWorkRequest& request, bool first_look,
                                      v1::AcquireWorkReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_ASSIGN_OR_RETURN(
      Member * worker, CheckMember(request.run_id(), request.member_id(), request.incarnation()));
  if (worker->role != Role::kRolloutWorker) {
    return absl::InvalidArgumentError(absl::StrCat(worker->member_id, " is no rollout worker"));
  }
  const absl::Time now = Now();
  if (first_look) {
    // Who asks for work is not at an evaluation item any more (its lease may never have arrived),
    // so heartbeats, which cannot name items, stop renewing it.
    for (uint64_t item : evals_->HeldBy(worker->member_id, worker->incarnation)) {
      items_let_go_.insert(item);
    }
  }
  // What the worker says and what was accepted from it must agree: a version whose acknowledgement
  // was refused, or is still on its way, does not count.
  const WorkerVersion version{
      worker->has_version && request.has_version() &&
          worker->acknowledged_timeline == request.acknowledged_timeline() &&
          worker->acknowledged_version == request.acknowledged_version(),
      request.acknowledged_timeline(), request.acknowledged_version()};
  const LeaseDecision decision =
      DecideLease(plan_.step, plan_.groups_per_lease, Work(now), version);
  reply->set_timeline(ledger_->timeline());
  reply->set_has_version(!manifests_.empty());
  if (!manifests_.empty()) reply->set_latest_version(manifests_.rbegin()->first);
  reply->set_state(State());
  switch (decision.kind) {
    case LeaseDecision::Kind::kNone:
      reply->set_reason(decision.reason);
      last_no_work_ = decision.reason;
      return absl::OkStatus();
    case LeaseDecision::Kind::kTrain:
      return LeaseGroups(decision, *worker, now, reply->mutable_lease());
    case LeaseDecision::Kind::kEval:
      return LeaseItem(decision, *worker, now, reply->mutable_lease());
  }
  return absl::OkStatus();
}

absl::Status Coordinator::LeaseGroups(const LeaseDecision& decision, const Member& worker,
                                      absl::Time now, v1::Lease* lease) {
  std::vector<uint64_t> groups = decision.groups;
  for (uint32_t i = 0; i < decision.lease_opened; ++i) groups.push_back(ledger_->cursor() + i);
  std::vector<prompts::Problem> problems;
  for (uint64_t group : groups) {
    absl::StatusOr<prompts::Problem> problem = plan_.train->Get(order_.At(group));
    if (!problem.ok()) {
      TEMPER_RETURN_IF_ERROR(End(Ended::kFailed, absl::StrCat("no problem for group ", group, ": ",
                                                              problem.status().ToString())));
      return problem.status();
    }
    problems.push_back(*std::move(problem));
  }
  if (decision.open.groups > 0) {
    TEMPER_RETURN_IF_ERROR(ledger_->OpenGroups(decision.open.groups, decision.open.round));
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<AttemptRow> attempts,
                          ledger_->Lease(groups, {worker.member_id, worker.incarnation},
                                         decision.version, now, plan_.lease_duration));
  lease->set_lease_id(attempts.front().lease_id);
  lease->set_timeline(ledger_->timeline());
  lease->set_version(decision.version);
  lease->set_lease_seconds(absl::ToDoubleSeconds(plan_.lease_duration));
  for (size_t i = 0; i < attempts.size(); ++i) {
    v1::TrainItem* item = lease->add_train();
    *item->mutable_ref() = RefOf(options_.run_id, attempts[i].id);
    *item->mutable_problem() = ProblemOf(problems[i]);
    item->set_samples(plan_.config.rollout().samples_per_group());
  }
  auto manifest = manifests_.find(decision.version);
  if (manifest != manifests_.end()) *lease->mutable_aqn() = manifest->second.aqn();
  options_.metrics->CountLease("train");
  options_.metrics->SetAttempts(ledger_->accounting());
  return absl::OkStatus();
}

absl::Status Coordinator::LeaseItem(const LeaseDecision& decision, const Member& worker,
                                    absl::Time now, v1::Lease* lease) {
  const EvalItemSpec spec = evals_->Find(decision.item)->spec;
  v1::EvalItem item;
  for (uint32_t i = 0; i < spec.questions; ++i) {
    absl::StatusOr<prompts::Problem> problem = plan_.eval_questions->Get(spec.first_question + i);
    if (!problem.ok()) {
      TEMPER_RETURN_IF_ERROR(End(Ended::kFailed, problem.status().ToString()));
      return problem.status();
    }
    *item.add_problems() = ProblemOf(*problem);
  }
  TEMPER_ASSIGN_OR_RETURN(const uint64_t lease_id, ledger_->NextLeaseId());
  TEMPER_ASSIGN_OR_RETURN(const EvalItemRow row,
                          evals_->Lease(decision.item, worker.member_id, worker.incarnation, now,
                                        plan_.lease_duration));
  items_let_go_.erase(decision.item);
  const v1::RunConfig& config = plan_.config;
  item.set_item_index(row.item_index);
  item.set_attempt(row.attempts);
  item.set_version(spec.version);
  item.set_error_scale(spec.error_scale);
  item.set_noise_seed(spec.noise_seed);
  item.set_injected(spec.injected);
  item.set_first_question(spec.first_question);
  item.set_temperature(config.eval().temperature());
  item.set_max_completion_tokens(config.eval().max_completion_tokens());
  lease->set_lease_id(lease_id);
  lease->set_timeline(ledger_->timeline());
  lease->set_version(decision.version);
  lease->set_lease_seconds(absl::ToDoubleSeconds(plan_.lease_duration));
  *lease->mutable_eval() = std::move(item);
  lease->mutable_aqn()->set_sigma(0);
  options_.metrics->CountLease("eval");
  return absl::OkStatus();
}

void Coordinator::TakeBack(const v1::Lease& lease) {
  absl::MutexLock lock(&mutex_);
  std::vector<AttemptId> ids;
  for (const v1::TrainItem& item : lease.train()) {
    if (ledger_->FindOpen(IdOf(item.ref())) != nullptr) ids.push_back(IdOf(item.ref()));
  }
  absl::Status status = EndAttempts(ids, Ending::kDrained, "the answer could not be delivered");
  if (lease.has_eval())
    status.Update(
        FailItem(lease.eval().item_index(), Ending::kDrained, "the answer could not be delivered"));
  if (!status.ok()) base::LogWarning("lease_not_taken_back", {{"status", status.ToString()}});
}

absl::Status Coordinator::EndAttempts(const std::vector<AttemptId>& ids, Ending ending,
                                      const std::string& detail) {
  if (ids.empty()) return absl::OkStatus();
  std::vector<AttemptEnd> ends;
  std::string out_of_attempts;
  for (const AttemptId& id : ids) {
    const RetryDecision retry = DecideRetry(plan_.retry, ending, id.attempt);
    if (retry.action == RetryAction::kStopRun && out_of_attempts.empty()) {
      out_of_attempts =
          absl::StrCat("group ", id.group_index, ": ", retry.reason, " (", detail, ")");
    }
    ends.push_back(
        {id, ending, detail, retry.action != RetryAction::kEndGroup, Now() + retry.wait});
  }
  TEMPER_RETURN_IF_ERROR(ledger_->End(ends));
  options_.metrics->SetAttempts(ledger_->accounting());
  for (const AttemptId& id : ids) {
    options_.files->Event("attempt_ended", {{"ending", EndingName(ending)},
                                            {"group", id.group_index},
                                            {"attempt", id.attempt},
                                            {"timeline", id.timeline},
                                            {"detail", detail}});
  }
  return out_of_attempts.empty() ? absl::OkStatus() : End(Ended::kFailed, out_of_attempts);
}

absl::Status Coordinator::FailItem(uint64_t item_index, Ending ending, const std::string& detail) {
  const EvalItemRow* item = evals_->Find(item_index);
  if (item == nullptr || item->state != EvalState::kLeased) return absl::OkStatus();
  const RetryDecision retry = DecideRetry(plan_.retry, ending, item->attempts);
  options_.files->Event("eval_item_failed", {{"item", item_index},
                                             {"attempt", item->attempts},
                                             {"ending", EndingName(ending)},
                                             {"detail", detail}});
  TEMPER_RETURN_IF_ERROR(evals_->Fail(item_index, Now() + retry.wait));
  if (retry.action != RetryAction::kStopRun) return absl::OkStatus();
  return End(Ended::kFailed,
             absl::StrCat("evaluation item ", item_index, ": ", retry.reason, " (", detail, ")"));
}

absl::Status Coordinator::ReleaseHeld(const Member& member, Ending ending,
                                      const std::string& detail) {
  TEMPER_RETURN_IF_ERROR(
      EndAttempts(ledger_->HeldBy(member.member_id, member.incarnation), ending, detail));
  for (uint64_t item : evals_->HeldBy(member.member_id, member.incarnation)) {
    TEMPER_RETURN_IF_ERROR(FailItem(item, ending, detail));
  }
  return absl::OkStatus();
}

absl::Status Coordinator::CompleteWork(const v1::CompleteWorkRequest& request,
                                       v1::CompleteWorkReply*) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(
      CheckMember(request.run_id(), request.member_id(), request.incarnation()).status());
  for (const v1::CompletedAttempt& done : request.attempts()) {
    const AttemptRow* attempt = ledger_->FindOpen(IdOf(done.ref()));
    if (attempt == nullptr || attempt->state != AttemptState::kLeased ||
        attempt->worker != request.member_id() || attempt->incarnation != request.incarnation()) {
      continue;  // it has ended, or is with the learner: that is the truth
    }
    const Ending ending = EndingFromNumber(done.ending());
    if (ending == Ending::kNone) continue;  // submitted; the learner's word is awaited
    if (ending != Ending::kGenerationFailed && ending != Ending::kRewardFailed &&
        ending != Ending::kDrained) {
      return absl::InvalidArgumentError(
          absl::StrCat("a worker cannot end an attempt as ", EndingName(ending)));
    }
    TEMPER_RETURN_IF_ERROR(EndAttempts({attempt->id}, ending, done.detail().substr(0, 1024)));
  }
  return absl::OkStatus();
}

absl::Status Coordinator::ReportEvalItem(const v1::ReportEvalItemRequest& request,
                                         v1::ReportEvalItemReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(
      CheckMember(request.run_id(), request.member_id(), request.incarnation()).status());
  const EvalItemRow* item = evals_->Find(request.item_index());
  if (request.timeline() != ledger_->timeline()) {
    reply->set_reason(
        absl::StrCat("timeline ", request.timeline(), " has ended, this is ", ledger_->timeline()));
  } else if (item == nullptr) {
    reply->set_reason(absl::StrCat("no evaluation item ", request.item_index()));
  } else if (item->state == EvalState::kDone) {
    reply->set_reason("another report came first");
  } else if (request.failure().empty()) {
    return TakeOutcomes(request, *item, reply);
  } else if (item->attempts == request.attempt() && item->worker == request.member_id()) {
    reply->set_reason("failed, leased again");
    return FailItem(item->item_index, Ending::kGenerationFailed, request.failure().substr(0, 1024));
  } else {
    reply->set_reason("another attempt holds the item");
  }
  return absl::OkStatus();
}

absl::Status Coordinator::TakeOutcomes(const v1::ReportEvalItemRequest& request,
                                       const EvalItemRow& item, v1::ReportEvalItemReply* reply) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<OutcomeRow> outcomes, OutcomesOf(request, item.spec));
  const EvalInjections injections = InjectionsOf(request);
  if ((item.spec.error_scale > 0) != (injections.elements > 0) ||
      item.spec.injected != (injections.injected_elements > 0)) {
    reply->set_reason(absl::StrCat(
        "error scale ", item.spec.error_scale, item.spec.injected ? " with" : " without",
        " injection, but the operators saw ", injections.elements, " perturbed elements and ",
        injections.injected_elements, " injected ones"));
    return FailItem(item.item_index, Ending::kGenerationFailed, reply->reason());
  }
  const EvalItemSpec spec = item.spec;
  TEMPER_RETURN_IF_ERROR(evals_->Finish(request.item_index(), outcomes, injections));
  reply->set_recorded(true);
  progress_seen_ = Now();
  items_let_go_.erase(request.item_index());
  if (!evals_->open()) options_.files->Event("eval_finished", {{"version", spec.version}});
  return absl::OkStatus();
}

absl::Status Coordinator::AcknowledgeWeights(const v1::AcknowledgeWeightsRequest& request,
                                             v1::AcknowledgeWeightsReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_ASSIGN_OR_RETURN(
      Member * worker, CheckMember(request.run_id(), request.member_id(), request.incarnation()));
  TEMPER_RETURN_IF_ERROR(CheckTimeline("an acknowledgement of weights", request.timeline()));
  auto manifest = manifests_.find(request.version());
  if (manifest == manifests_.end()) {
    reply->set_reason(absl::StrCat("version ", request.version(), " is not (or no longer) known"));
    return absl::OkStatus();
  }
  const Acknowledgement now{request.base_weights_hash(), request.aqn_sigma(), request.aqn_norms(),
                            request.aqn_checksum(), request.member_id()};
  std::optional<Acknowledgement> first;
  if (auto known = first_acknowledged_.find(request.version());
      known != first_acknowledged_.end()) {
    first = known->second;
  }
  const v1::NoiseInjectionConfig& aqn = plan_.config.trainer().noise_injection();
  const AcknowledgementDecision decision =
      DecideAcknowledgement({manifest->second.base_weights_hash(), manifest->second.aqn().sigma(),
                             !aqn.has_draw() || aqn.draw() != "per_worker"},
                            first, now);
  reply->set_accepted(decision.accepted);
  reply->set_reason(decision.reason);
  if (!decision.accepted) {
    options_.files->Event("weights_refused", {{"member", worker->member_id},
                                              {"version", request.version()},
                                              {"reason", decision.reason}});
    return absl::OkStatus();
  }
  Member updated = *worker;
  updated.has_version = true;
  updated.acknowledged_timeline = request.timeline();
  updated.acknowledged_version = request.version();
  TEMPER_RETURN_IF_ERROR(options_.store->PutMember(updated));
  *worker = updated;
  first_acknowledged_.emplace(request.version(), now);
  RefreshMetrics(Now());
  return absl::OkStatus();
}

absl::Status Coordinator::GetManifest(const v1::GetManifestRequest& request,
                                      v1::GetManifestReply* reply) {
  absl::MutexLock lock(&mutex_);
  TEMPER_RETURN_IF_ERROR(CheckRun(request.run_id()));
  auto manifest = manifests_.find(request.version());
  if (request.timeline() != ledger_->timeline() || manifest == manifests_.end()) {
    return absl::NotFoundError(absl::StrCat("version ", request.version(), " of timeline ",
                                            request.timeline(), " is not (or no longer) known"));
  }
  *reply->mutable_manifest() = manifest->second;
  return absl::OkStatus();
}

}  // namespace temper::orchestrator
