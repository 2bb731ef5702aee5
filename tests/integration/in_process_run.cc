#include "tests/integration/in_process_run.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "learner/publisher.h"
#include "learner/step_loop.h"
#include "reward_server/reward_service.h"
#include "rollout_worker/engine_sampler.h"
#include "rollout_worker/lease_messages.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace temper::testing {
namespace {

constexpr char kRunId[] = "in-process";
constexpr uint64_t kIncarnation = 1;
constexpr absl::Duration kPatience = absl::Seconds(30);

}  // namespace

uint64_t Happenings::count() const {
  absl::MutexLock lock(&mutex_);
  return count_;
}

void Happenings::Note() {
  absl::MutexLock lock(&mutex_);
  ++count_;
}

bool Happenings::AwaitAfter(uint64_t seen) const {
  absl::MutexLock lock(&mutex_);
  const auto more = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ > seen; };
  return mutex_.AwaitWithTimeout(absl::Condition(&more), kPatience);
}

absl::StatusOr<v1::BeginTimelineReply> CoordinatorLink::BeginTimeline(
    const v1::BeginTimelineRequest& request, absl::Time) {
  v1::BeginTimelineReply reply;
  TEMPER_RETURN_IF_ERROR(coordinator_->BeginTimeline(request, &reply));
  happenings_->Note();
  return reply;
}

absl::StatusOr<v1::AdmitGroupReply> CoordinatorLink::AdmitGroup(
    const v1::AdmitGroupRequest& request, absl::Time) {
  v1::AdmitGroupReply reply;
  TEMPER_RETURN_IF_ERROR(coordinator_->AdmitGroup(request, &reply));
  happenings_->Note();
  return reply;
}

absl::StatusOr<v1::CommitStepReply> CoordinatorLink::CommitStep(
    const v1::CommitStepRequest& request, absl::Time) {
  v1::CommitStepReply reply;
  TEMPER_RETURN_IF_ERROR(coordinator_->CommitStep(request, &reply));
  happenings_->Note();
  return reply;
}

absl::StatusOr<v1::PublishManifestReply> CoordinatorLink::PublishManifest(
    const v1::PublishManifestRequest& request, absl::Time) {
  while (true) {
    const uint64_t seen = happenings_->count();
    v1::PublishManifestReply reply;
    const absl::Status status = coordinator_->PublishManifest(request, &reply);
    if (status.ok()) {
      happenings_->Note();
      return reply;
    }
    // An evaluation holds the versions still; its next result is a happening.
    if (!absl::IsUnavailable(status) || !happenings_->AwaitAfter(seen)) return status;
  }
}

absl::Status CoordinatorLink::FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                                 absl::Time) {
  v1::FormBroadcastGroupReply reply;
  return coordinator_->FormBroadcastGroup(request, &reply);
}

absl::Status CoordinatorLink::EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                                absl::Time) {
  v1::EndBroadcastGroupReply reply;
  return coordinator_->EndBroadcastGroup(request, &reply);
}

absl::Status CoordinatorLink::SnapshotLedger(const v1::SnapshotLedgerRequest& request,
                                             const std::string& path, absl::Time) {
  TEMPER_RETURN_IF_ERROR(coordinator_->MaySnapshot(request));
  TEMPER_RETURN_IF_ERROR(base::RemoveAll(path));
  return orchestrator::CopyDatabase(ledger_path_, path);
}

absl::Status CoordinatorLink::StopRun(const v1::StopRunRequest& request, absl::Time) {
  v1::StopRunReply reply;
  return coordinator_->StopRun(request, &reply);
}

absl::StatusOr<std::unique_ptr<InProcessRun>> InProcessRun::Start(const v1::RunConfig& config) {
  std::unique_ptr<InProcessRun> run(new InProcessRun());
  TEMPER_RETURN_IF_ERROR(run->Open(config));
  TEMPER_RETURN_IF_ERROR(run->OpenLearner(config));
  return run;
}

InProcessRun::~InProcessRun() {
  stop_.RequestStop();
  happenings_.Note();
  if (learner_.joinable()) learner_.join();
}

absl::Status InProcessRun::Open(const v1::RunConfig& config) {
  TEMPER_ASSIGN_OR_RETURN(store_, orchestrator::LedgerStore::Open(config.run_dir() + "/ledger.db"));
  files_ = std::make_unique<orchestrator::RunFiles>(config.run_dir(), std::vector<std::string>{},
                                                    base::SystemClock());
  orchestrator_metrics_ = std::make_unique<orchestrator::OrchestratorMetrics>(&registry_);
  orchestrator::CoordinatorOptions options;
  TEMPER_ASSIGN_OR_RETURN(options.plan, orchestrator::MakeRunPlan(config));
  options.run_id = kRunId;
  options.store = store_.get();
  options.files = files_.get();
  options.metrics = orchestrator_metrics_.get();
  options.clock = &clock_;
  TEMPER_ASSIGN_OR_RETURN(coordinator_, orchestrator::Coordinator::Create(std::move(options)));
  link_ = std::make_unique<CoordinatorLink>(coordinator_.get(), config.run_dir() + "/ledger.db",
                                            &happenings_);
  reward_metrics_ = std::make_unique<reward_server::RewardMetrics>(&registry_);
  TEMPER_ASSIGN_OR_RETURN(scorer_, reward_server::BatchScorer::Create(
                                       {.threads = 1, .metrics = reward_metrics_.get()}));
  TEMPER_ASSIGN_OR_RETURN(policy_files_, learner::ReadPolicyFiles(config.model()));
  TEMPER_ASSIGN_OR_RETURN(setup_,
                          rollout_worker::MakeRunSetup(kRunId, config, policy_files_.texts));
  return Join(v1::ROLE_REWARD_SERVER, "reward");
}

absl::Status InProcessRun::OpenLearner(const v1::RunConfig& config) {
  TEMPER_RETURN_IF_ERROR(Join(v1::ROLE_LEARNER, "learner"));
  TEMPER_ASSIGN_OR_RETURN(learner_options_,
                          learner::LearnerOptionsFromConfig(config, policy_files_.parts.config));
  learner_options_.admission.run_id = kRunId;
  TEMPER_ASSIGN_OR_RETURN(
      trainer_, learner::MakeTrainer(learner_options_, config.model().path(), /*checkpoint=*/"",
                                     /*fresh_weights_allowed=*/false, nullptr));
  TEMPER_RETURN_IF_ERROR(ServeBase());
  v1::BeginTimelineRequest request;
  request.set_run_id(kRunId);
  request.set_member_id("learner");
  request.set_incarnation(kIncarnation);
  TEMPER_ASSIGN_OR_RETURN(const v1::BeginTimelineReply begun,
                          link_->BeginTimeline(request, absl::Now() + kPatience));
  groups_ = std::make_unique<learner::GroupStore>(learner_options_.batch);
  groups_->Open(begun.timeline(), /*policy_version=*/0);
  desk_ = std::make_unique<learner::SubmissionDesk>(
      learner::SubmissionDeskOptions{.rules = learner_options_.admission,
                                     .incarnation = kIncarnation},
      groups_.get(), link_.get(), &learner_metrics_);
  learner_ = std::thread([this, timeline = begun.timeline()] {
    learner::Publisher publisher({.run_id = kRunId,
                                  .timeline = timeline,
                                  .incarnation = kIncarnation,
                                  .noise_id = learner_options_.noise_id,
                                  .aqn = learner_options_.aqn,
                                  .adapted_base_hash = setup_->base_hash,
                                  .bucket_bytes = learner_options_.bucket_bytes},
                                 &source_, link_.get());
    learner::StepLoop loop({.options = &learner_options_,
                            .run_id = kRunId,
                            .timeline = timeline,
                            .incarnation = kIncarnation,
                            .trainer = trainer_.get(),
                            .store = groups_.get(),
                            .orchestrator = link_.get(),
                            .publisher = &publisher,
                            .tokenizer = policy_files_.parts.tokenizer.get(),
                            .chat_template = policy_files_.parts.chat_template.source,
                            .metrics = &learner_metrics_,
                            .stop = &stop_});
    trained_ = loop.Run();
    happenings_.Note();
  });
  return absl::OkStatus();
}

// The frozen base where adapters are trained; workers have it before their first version.
absl::Status InProcessRun::ServeBase() {
  const model::Parameters& parameters = trainer_->parameters();
  if (!parameters.lora.enabled()) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(
      const auto base, learner::Publisher::BuildBase(
                           {.run_id = kRunId, .bucket_bytes = learner_options_.bucket_bytes},
                           model::ExpectedTensors(parameters.config), model::ViewsOf(parameters)));
  setup_->base_hash = base->manifest().base_weights_hash();
  source_.SetBase(base);
  return absl::OkStatus();
}

absl::Status InProcessRun::Join(v1::Role role, const std::string& id) {
  v1::JoinRequest request;
  request.set_role(role);
  request.set_member_id(id);
  request.set_incarnation(kIncarnation);
  v1::JoinReply reply;
  return coordinator_->Join(request, &reply);
}

absl::StatusOr<int> InProcessRun::AddWorker() {
  Worker worker{.id = absl::StrCat("worker-", workers_.size())};
  TEMPER_ASSIGN_OR_RETURN(
      worker.sampler, rollout_worker::MakeEngineSampler(*setup_, worker.id, source_.base().get()));
  TEMPER_RETURN_IF_ERROR(Join(v1::ROLE_ROLLOUT_WORKER, worker.id));
  workers_.push_back(std::move(worker));
  return static_cast<int>(workers_.size()) - 1;
}

absl::StatusOr<v1::AcquireWorkReply> InProcessRun::Acquire(const Worker& worker) {
  v1::AcquireWorkRequest request;
  request.set_run_id(kRunId);
  request.set_member_id(worker.id);
  request.set_incarnation(kIncarnation);
  request.set_has_version(worker.has_version);
  request.set_acknowledged_timeline(worker.timeline);
  request.set_acknowledged_version(worker.version);
  v1::AcquireWorkReply reply;
  TEMPER_RETURN_IF_ERROR(coordinator_->AcquireWork(request, /*first_look=*/true, &reply));
  return reply;
}

absl::StatusOr<bool> InProcessRun::Turn(int worker) {
  Worker& who = workers_[static_cast<size_t>(worker)];
  if (who.vanished) return false;
  TEMPER_ASSIGN_OR_RETURN(const v1::AcquireWorkReply reply, Acquire(who));
  if (reply.has_lease()) {
    TEMPER_RETURN_IF_ERROR(Carry(who, reply.lease()));
    return true;
  }
  const bool overtaken =
      reply.has_version() && (!who.has_version || who.timeline != reply.timeline() ||
                              who.version != reply.latest_version());
  if (overtaken) TEMPER_RETURN_IF_ERROR(Install(&who, reply.timeline(), reply.latest_version()));
  return overtaken;
}

absl::StatusOr<bool> InProcessRun::TakeAndVanish(int worker) {
  Worker& who = workers_[static_cast<size_t>(worker)];
  TEMPER_ASSIGN_OR_RETURN(const v1::AcquireWorkReply reply, Acquire(who));
  who.vanished = reply.has_lease();
  return who.vanished;
}

absl::Status InProcessRun::Install(Worker* worker, uint64_t timeline, uint64_t version) {
  TEMPER_ASSIGN_OR_RETURN(const auto weights, source_.Find(kRunId, timeline, version));
  for (const auto& bucket : weights->buckets()) installed_bytes_ += bucket->size();
  TEMPER_ASSIGN_OR_RETURN(const numerics::AqnReport report, worker->sampler->Install(*weights));
  v1::AcknowledgeWeightsRequest request;
  request.set_run_id(kRunId);
  request.set_timeline(timeline);
  request.set_member_id(worker->id);
  request.set_incarnation(kIncarnation);
  request.set_version(version);
  request.set_base_weights_hash(weights->manifest().base_weights_hash());
  request.set_aqn_sigma(report.sigma);
  request.set_aqn_norms(static_cast<uint32_t>(report.norms_touched));
  request.set_aqn_checksum(report.checksum);
  v1::AcknowledgeWeightsReply reply;
  TEMPER_RETURN_IF_ERROR(coordinator_->AcknowledgeWeights(request, &reply));
  if (!reply.accepted()) return absl::InternalError(reply.reason());
  worker->has_version = true;
  worker->timeline = timeline;
  worker->version = version;
  return absl::OkStatus();
}

absl::Status InProcessRun::Carry(const Worker& worker, const v1::Lease& lease) {
  TEMPER_RETURN_IF_ERROR(rollout_worker::CheckLease(*setup_, lease));
  rollout_worker::PlannedBatch batch;
  TEMPER_RETURN_IF_ERROR(rollout_worker::PlanBatch(*setup_, lease, &batch));
  rollout_worker::GeneratedLease generated{.lease = lease};
  TEMPER_ASSIGN_OR_RETURN(generated.result, worker.sampler->Generate(batch.request, {}));
  const bool exact = setup_->synchronous() || lease.has_eval();
  TEMPER_RETURN_IF_ERROR(
      rollout_worker::CheckResult(lease, batch.request, generated.result, exact));
  for (model::PromptGroup& group : batch.request.groups) {
    generated.prompt_ids.push_back(std::move(group.prompt_ids));
  }
  TEMPER_ASSIGN_OR_RETURN(const v1::ScoreRequest asked,
                          rollout_worker::ScoreRequestFor(*setup_, generated));
  TEMPER_ASSIGN_OR_RETURN(const v1::ScoreReply scores, Score(asked));
  if (lease.has_eval()) {
    v1::ReportEvalItemRequest report = rollout_worker::EvalReportFor(*setup_, generated, scores);
    report.set_run_id(kRunId);
    report.set_timeline(lease.timeline());
    report.set_member_id(worker.id);
    report.set_incarnation(kIncarnation);
    v1::ReportEvalItemReply reply;
    TEMPER_RETURN_IF_ERROR(coordinator_->ReportEvalItem(report, &reply));
    happenings_.Note();
    return reply.recorded() ? absl::OkStatus() : absl::InternalError(reply.reason());
  }
  for (int i = 0; i < lease.train_size(); ++i) {
    TEMPER_RETURN_IF_ERROR(Submit(rollout_worker::SubmissionFor(*setup_, generated, i, scores,
                                                                worker.id, absl::ZeroDuration())));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ScoreReply> InProcessRun::Score(const v1::ScoreRequest& request) {
  TEMPER_ASSIGN_OR_RETURN(reward_server::Batch batch,
                          reward_server::DecodeScoreRequest(request, absl::Now()));
  v1::ScoreReply reply;
  absl::Notification scored;
  TEMPER_RETURN_IF_ERROR(
      scorer_->Submit(std::move(batch), [&](const reward_server::Batch& done, const auto& scores) {
        reward_server::EncodeScoreReply(done, scores, &reply);
        scored.Notify();
      }));
  scored.WaitForNotification();  // the scorer answers everything that it took
  return reply;
}

absl::Status InProcessRun::Submit(v1::SubmitGroupRequest submission) {
  if (tamper_) tamper_(&submission);
  absl::Notification answered;
  absl::Status status;
  desk_->Submit(std::move(submission), [&](const absl::StatusOr<v1::SubmitGroupReply>& reply) {
    status = reply.status();
    answered.Notify();
  });
  answered.WaitForNotification();  // the desk answers everything, at its end too
  return status;
}

void InProcessRun::Pass(absl::Duration duration) {
  clock_.Advance(duration);
  std::vector<std::string> alive = {"reward", "learner"};
  for (const Worker& worker : workers_) {
    if (!worker.vanished) alive.push_back(worker.id);
  }
  for (const std::string& id : alive) {
    v1::HeartbeatRequest request;
    request.set_run_id(kRunId);
    request.set_member_id(id);
    request.set_incarnation(kIncarnation);
    v1::HeartbeatReply reply;
    (void)coordinator_->Heartbeat(request, &reply);
  }
  coordinator_->Tick();
}

absl::Status InProcessRun::EndIfDue() {
  TEMPER_ASSIGN_OR_RETURN(const auto due, coordinator_->SummaryDue());
  if (!due.has_value()) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(const std::string summary, orchestrator::SummaryJson(*due));
  return coordinator_->SummaryWritten(summary);
}

absl::Status InProcessRun::PlayToTheEnd() {
  while (coordinator_->state() != v1::RUN_STATE_FINISHED) {
    const uint64_t seen = happenings_.count();
    bool progress = false;
    for (size_t worker = 0; worker < workers_.size(); ++worker) {
      TEMPER_ASSIGN_OR_RETURN(const bool did, Turn(static_cast<int>(worker)));
      progress |= did;
    }
    TEMPER_RETURN_IF_ERROR(coordinator_->VerifyAccounting());
    TEMPER_RETURN_IF_ERROR(EndIfDue());
    if (coordinator_->state() == v1::RUN_STATE_FAILED) {
      return absl::InternalError("the run failed");
    }
    if (!progress && coordinator_->state() != v1::RUN_STATE_FINISHED &&
        !happenings_.AwaitAfter(seen)) {
      return absl::DeadlineExceededError("nothing happens any more");
    }
  }
  learner_.join();
  return trained_;
}

std::vector<std::string> InProcessRun::MetricsLines() { return files_->MetricsAfter(0); }

std::vector<std::string> InProcessRun::WeightHashes() {
  std::vector<std::string> hashes;
  for (const std::string& line : MetricsLines()) {
    hashes.push_back(nlohmann::json::parse(line).at("base_weights_hash").get<std::string>());
  }
  return hashes;
}

uint64_t InProcessRun::Attempts(const std::string& ending) {
  v1::GetStatusReply reply;
  if (!coordinator_->GetStatus({}, &reply).ok()) return 0;
  return reply.attempts().contains(ending) ? reply.attempts().at(ending) : 0;
}

}  // namespace temper::testing
