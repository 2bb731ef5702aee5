#pragma once

// A coordinator with its peers played by the test, message by message, and a clock moved by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "orchestrator/coordinator.h"
#include "services/base/files.h"
#include "services/config/defaults.h"
#include "tests/support/fake_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::orchestrator {

using ::temper::testing::IsOk;

inline v1::RunConfig SmallRun() {
  v1::RunConfig config;
  config.set_seed(5);
  config.mutable_dataset()->set_name("gsm-arith");
  config.mutable_dataset()->set_seed(7);
  config.mutable_dataset()->set_min_steps(2);
  config.mutable_dataset()->set_max_steps(3);
  config.mutable_dataset()->set_max_number(20);
  config.mutable_rollout()->set_samples_per_group(2);
  config.mutable_rollout()->set_groups_per_lease(3);
  config.mutable_rollout()->set_max_completion_tokens(8);
  config.mutable_reward()->set_rule("strict");
  v1::TrainerConfig* trainer = config.mutable_trainer();
  trainer->set_total_updates(3);
  trainer->set_groups_per_step(4);
  trainer->mutable_noisy_ops()->set_error_type("absolute_gaussian");
  trainer->mutable_dapo()->set_dynamic_sampling(true);
  trainer->mutable_dapo()->set_max_rounds(2);
  v1::EvalConfig* eval = config.mutable_eval();
  eval->set_questions(5);
  eval->set_questions_per_item(4);
  eval->add_error_scales(0);
  eval->add_error_scales(0.1);
  eval->set_noise_seeds(2);
  config.mutable_orchestrator()->set_lease_seconds(60);
  config.mutable_orchestrator()->set_member_timeout_seconds(10);
  config.mutable_orchestrator()->set_max_attempts(3);
  config.mutable_orchestrator()->set_retry_backoff_seconds(1);
  config.mutable_orchestrator()->set_no_worker_timeout_seconds(100);
  config::FillDefaults(&config);
  return config;
}

// The coordinator with one reward server, one learner and any number of workers around it.
class TestRun {
 public:
  explicit TestRun(v1::RunConfig config = SmallRun()) : config_(std::move(config)) {
    Start();
    EXPECT_THAT(Join(v1::ROLE_REWARD_SERVER, "reward"), IsOk());
    EXPECT_THAT(Join(v1::ROLE_ROLLOUT_WORKER, "w1"), IsOk());
  }

  void Start() {
    auto store = LedgerStore::Open(directory_.File("ledger.db"));
    EXPECT_THAT(store, IsOk());
    store_ = *std::move(store);
    auto commits = store_->Commits();
    std::vector<std::string> lines;
    for (const CommitRow& commit : *commits) lines.push_back(commit.metrics_json);
    files_ = std::make_unique<RunFiles>(directory_.path(), lines, base::SystemClock());
    registry_ = std::make_unique<metrics::MetricsRegistry>();
    metrics_ = std::make_unique<OrchestratorMetrics>(registry_.get());
    auto coordinator = OpenCoordinator();
    EXPECT_THAT(coordinator, IsOk());
    coordinator_ = *std::move(coordinator);
  }
  absl::StatusOr<std::unique_ptr<Coordinator>> OpenCoordinator() {
    CoordinatorOptions options;
    auto plan = MakeRunPlan(config_);
    EXPECT_THAT(plan, IsOk());
    options.plan = *std::move(plan);
    options.run_id = "run";
    options.store = store_.get();
    options.files = files_.get();
    options.metrics = metrics_.get();
    options.go_on = go_on_;
    options.clock = &clock_;
    return Coordinator::Create(std::move(options));
  }
  void Close() {
    coordinator_.reset();
    files_.reset();
    store_.reset();
  }
  // As the supervisor does, or with go_on as a person who resumes.
  void Restart(bool go_on = false) {
    go_on_ = go_on;
    Close();
    Start();
  }
  const std::string& directory() const { return directory_.path(); }
  Coordinator& operator*() { return *coordinator_; }
  Coordinator* operator->() { return coordinator_.get(); }
  temper::testing::FakeClock& clock() { return clock_; }
  LedgerStore& store() { return *store_; }
  std::string Path(const std::string& name) { return directory_.File(name); }

  absl::Status Join(v1::Role role, const std::string& id, uint64_t incarnation = 1) {
    v1::JoinRequest request;
    request.set_role(role);
    request.set_member_id(id);
    request.set_incarnation(incarnation);
    v1::JoinReply reply;
    return coordinator_->Join(request, &reply);
  }
  absl::Status Beat(const std::string& id, const v1::Lease& holding = {}) {
    v1::HeartbeatRequest request;
    request.set_run_id("run");
    request.set_member_id(id);
    request.set_incarnation(id == "learner" ? learner_ : 1);
    for (const v1::TrainItem& item : holding.train()) *request.add_holding() = item.ref();
    v1::HeartbeatReply reply;
    return coordinator_->Heartbeat(request, &reply);
  }
  // A new incarnation of the learner resumes after `step`.
  absl::Status BeginTimeline(uint64_t step, const v1::CommitStepRequest* last = nullptr) {
    EXPECT_THAT(Join(v1::ROLE_LEARNER, "learner", ++learner_), IsOk());
    return BeginAgain(step, last);
  }
  absl::Status BeginAgain(uint64_t step, const v1::CommitStepRequest* last = nullptr) {
    v1::BeginTimelineRequest request;
    request.set_run_id("run");
    request.set_member_id("learner");
    request.set_incarnation(learner_);
    request.set_resume_step(step);
    if (last != nullptr) *request.mutable_last_commit() = *last;
    v1::BeginTimelineReply reply;
    const absl::Status status = coordinator_->BeginTimeline(request, &reply);
    if (status.ok()) timeline_ = reply.timeline();
    return status;
  }
  absl::Status Publish(uint64_t version) {
    v1::PublishManifestRequest request;
    request.set_learner_incarnation(learner_);
    request.mutable_manifest()->set_run_id("run");
    request.mutable_manifest()->set_timeline(timeline_);
    request.mutable_manifest()->set_version(version);
    request.mutable_manifest()->set_base_weights_hash(100 + version);
    v1::PublishManifestReply reply;
    return coordinator_->PublishManifest(request, &reply);
  }
  bool Acknowledge(const std::string& worker, uint64_t version) {
    v1::AcknowledgeWeightsRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline_);
    request.set_member_id(worker);
    request.set_incarnation(1);
    request.set_version(version);
    request.set_base_weights_hash(100 + version);
    v1::AcknowledgeWeightsReply reply;
    EXPECT_THAT(coordinator_->AcknowledgeWeights(request, &reply), IsOk());
    if (reply.accepted()) versions_[worker] = version;
    return reply.accepted();
  }
  v1::AcquireWorkReply Acquire(const std::string& worker) {
    v1::AcquireWorkRequest request;
    request.set_run_id("run");
    request.set_member_id(worker);
    request.set_incarnation(1);
    request.set_acknowledged_timeline(timeline_);
    request.set_acknowledged_version(versions_[worker]);
    request.set_has_version(versions_.count(worker) > 0);
    v1::AcquireWorkReply reply;
    EXPECT_THAT(coordinator_->AcquireWork(request, true, &reply), IsOk());
    return reply;
  }
  v1::AdmitGroupReply Admit(const v1::GroupRef& ref, v1::Examination found = v1::EXAMINATION_KEPT) {
    v1::AdmitGroupRequest request;
    *request.mutable_ref() = ref;
    request.set_learner_incarnation(learner_);
    request.set_examination(found);
    v1::AdmitGroupReply reply;
    EXPECT_THAT(coordinator_->AdmitGroup(request, &reply), IsOk());
    return reply;
  }
  v1::ReportEvalItemReply Report(const std::string& worker, const v1::EvalItem& item,
                                 bool correct) {
    v1::ReportEvalItemRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline_);
    request.set_member_id(worker);
    request.set_incarnation(1);
    request.set_item_index(item.item_index());
    request.set_attempt(item.attempt());
    for (int i = 0; i < item.problems_size(); ++i) {
      v1::QuestionOutcome* outcome = request.add_outcomes();
      outcome->set_question(item.first_question() + i);
      outcome->set_accuracy(correct ? 1 : 0);
    }
    if (item.error_scale() > 0) request.add_injections()->set_elements(10);
    if (item.injected()) {
      v1::InjectionCount* count = request.add_injections();
      count->set_elements(7);
      count->set_tensor("weight_operand");
    }
    v1::ReportEvalItemReply reply;
    EXPECT_THAT(coordinator_->ReportEvalItem(request, &reply), IsOk());
    return reply;
  }
  void Evaluate(const std::string& worker, bool correct) {
    while (coordinator_->state() == v1::RUN_STATE_EVALUATING) {
      const v1::AcquireWorkReply work = Acquire(worker);
      ASSERT_TRUE(work.lease().has_eval()) << work.reason();
      EXPECT_TRUE(Report(worker, work.lease().eval(), correct).recorded());
    }
  }
  v1::CommitStepRequest CommitRequest(uint64_t step, const std::vector<v1::GroupRef>& trained) {
    v1::CommitStepRequest request;
    request.set_run_id("run");
    request.set_timeline(timeline_);
    request.set_step(step);
    request.set_learner_incarnation(learner_);
    request.set_policy_version(step);
    request.set_skipped(trained.empty());
    request.set_metrics_json(absl::StrCat("{\"step\": ", step, "}"));
    for (const v1::GroupRef& ref : trained) {
      v1::ClosedAttempt* closed = request.add_closed();
      closed->set_group_index(ref.group_index());
      closed->set_attempt(ref.attempt());
      closed->set_ending(v1::ENDING_TRAINED);
    }
    return request;
  }
  absl::Status Commit(const v1::CommitStepRequest& request, bool* already = nullptr) {
    v1::CommitStepReply reply;
    const absl::Status status = coordinator_->CommitStep(request, &reply);
    if (already != nullptr) *already = reply.already();
    return status;
  }
  // Leases all groups of a round to the workers in turn and admits them; (index, problem) of each.
  std::vector<v1::TrainItem> SampleRound(const std::vector<std::string>& workers) {
    std::vector<v1::TrainItem> items;
    for (size_t turn = 0;; ++turn) {
      const v1::AcquireWorkReply work = Acquire(workers[turn % workers.size()]);
      if (!work.has_lease()) break;
      items.insert(items.end(), work.lease().train().begin(), work.lease().train().end());
    }
    for (auto item = items.rbegin(); item != items.rend(); ++item) {
      EXPECT_TRUE(Admit(item->ref()).admitted());
    }
    return items;
  }
  static std::vector<v1::GroupRef> Refs(const std::vector<v1::TrainItem>& items) {
    std::vector<v1::GroupRef> refs;
    for (const v1::TrainItem& item : items) refs.push_back(item.ref());
    return refs;
  }
  // Version 0 out and evaluated: training may begin.
  void BeginTraining() {
    ASSERT_THAT(BeginTimeline(0), IsOk());
    ASSERT_THAT(Publish(0), IsOk());
    ASSERT_TRUE(Acknowledge("w1", 0));
    Evaluate("w1", false);
  }
  std::string File(const std::string& name) {
    EXPECT_THAT(files_->Flush(absl::Now() + absl::Seconds(20)), IsOk());
    auto text = base::ReadFile(directory_.File(name), 1 << 20);
    return text.value_or(std::string());
  }

  uint64_t learner_ = 0;
  uint64_t timeline_ = 0;
  std::map<std::string, uint64_t> versions_;

 private:
  const v1::RunConfig config_;
  temper::testing::TempDir directory_;
  temper::testing::FakeClock clock_;
  bool go_on_ = false;
  std::unique_ptr<LedgerStore> store_;
  std::unique_ptr<RunFiles> files_;
  std::unique_ptr<metrics::MetricsRegistry> registry_;
  std::unique_ptr<OrchestratorMetrics> metrics_;
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace temper::orchestrator
