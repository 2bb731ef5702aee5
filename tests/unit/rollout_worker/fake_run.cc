#include "tests/unit/rollout_worker/fake_run.h"

#include <utility>

#include "services/base/check.h"
#include "services/rpc/reply.h"

namespace temper::rollout_worker {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

}  // namespace

class FakeRun::Orchestrator final : public v1::OrchestratorService::CallbackService {
 public:
  explicit Orchestrator(FakeRun* run) : run_(run) {}

  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context, const v1::JoinRequest*,
                                 v1::JoinReply* reply) override {
    return rpc::Reply(context, nullptr, "Join", [&] {
      absl::MutexLock lock(&run_->mutex_);
      reply->set_run_id("run-1");
      reply->set_timeline(run_->timeline_);
      *reply->mutable_config() = run_->config_;
      reply->set_heartbeat_seconds(0.02);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context,
                                      const v1::HeartbeatRequest* request,
                                      v1::HeartbeatReply* reply) override {
    return rpc::Reply(context, nullptr, "Heartbeat", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.holding = {request->holding().begin(), request->holding().end()};
      reply->set_state(run_->state_);
      reply->set_timeline(run_->timeline_);
      reply->set_comm_epoch(run_->comm_epoch_);
      reply->set_ended_comm_epoch(run_->ended_comm_epoch_);
      if (run_->manifest_.has_value()) {
        reply->set_has_version(true);
        reply->set_latest_version(run_->manifest_->version());
      }
      AddPeer(reply, v1::ROLE_REWARD_SERVER, "reward", run_->reward_server_->address());
      if (!run_->learner_hidden_) {
        AddPeer(reply, v1::ROLE_LEARNER, "learner", run_->learner_server_->address());
      }
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context, const v1::LeaveRequest*,
                                  v1::LeaveReply*) override {
    return rpc::Reply(context, nullptr, "Leave", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.left = true;
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* AcquireWork(grpc::CallbackServerContext* context,
                                        const v1::AcquireWorkRequest* request,
                                        v1::AcquireWorkReply* reply) override {
    return rpc::Reply(context, nullptr, "AcquireWork", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.acquired.push_back(*request);
      reply->set_timeline(run_->timeline_);
      reply->set_has_version(run_->manifest_.has_value());
      if (run_->manifest_.has_value()) reply->set_latest_version(run_->manifest_->version());
      const bool suits = !run_->leases_.empty() && request->has_version() &&
                         request->acknowledged_timeline() == run_->leases_.front().timeline() &&
                         request->acknowledged_version() >= run_->leases_.front().version();
      if (suits) {
        *reply->mutable_lease() = std::move(run_->leases_.front());
        run_->leases_.pop_front();
      }
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* CompleteWork(grpc::CallbackServerContext* context,
                                         const v1::CompleteWorkRequest* request,
                                         v1::CompleteWorkReply*) override {
    return rpc::Reply(context, nullptr, "CompleteWork", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.completed.insert(run_->heard_.completed.end(), request->attempts().begin(),
                                    request->attempts().end());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ReportEvalItem(grpc::CallbackServerContext* context,
                                           const v1::ReportEvalItemRequest* request,
                                           v1::ReportEvalItemReply* reply) override {
    return rpc::Reply(context, nullptr, "ReportEvalItem", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.reports.push_back(*request);
      reply->set_recorded(true);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* AcknowledgeWeights(grpc::CallbackServerContext* context,
                                               const v1::AcknowledgeWeightsRequest* request,
                                               v1::AcknowledgeWeightsReply* reply) override {
    return rpc::Reply(context, nullptr, "AcknowledgeWeights", [&] {
      absl::MutexLock lock(&run_->mutex_);
      run_->heard_.acknowledged.push_back(*request);
      reply->set_accepted(true);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetManifest(grpc::CallbackServerContext* context,
                                        const v1::GetManifestRequest* request,
                                        v1::GetManifestReply* reply) override {
    return rpc::Reply(context, nullptr, "GetManifest", [&]() -> absl::Status {
      absl::MutexLock lock(&run_->mutex_);
      if (!run_->manifest_.has_value() || run_->manifest_->version() != request->version()) {
        return absl::NotFoundError("no such version");
      }
      *reply->mutable_manifest() = *run_->manifest_;
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* GetBroadcastGroup(grpc::CallbackServerContext* context,
                                              const v1::GetBroadcastGroupRequest* request,
                                              v1::GetBroadcastGroupReply* reply) override {
    return rpc::Reply(context, nullptr, "GetBroadcastGroup", [&]() -> absl::Status {
      absl::MutexLock lock(&run_->mutex_);
      if (request->comm_epoch() <= run_->ended_comm_epoch_) return absl::AbortedError("over");
      if (request->comm_epoch() != run_->comm_epoch_) return absl::UnavailableError("not yet");
      run_->heard_.asked_for_group.push_back(*request);
      if (run_->group_.world_size() == 0) return absl::NotFoundError("no seat");
      *reply = run_->group_;
      return absl::OkStatus();
    });
  }

 private:
  static void AddPeer(v1::HeartbeatReply* reply, v1::Role role, const std::string& name,
                      const std::string& address) {
    v1::Peer& peer = *reply->add_peers();
    peer.set_role(role);
    peer.set_member_id(name);
    peer.set_address(address);
    peer.set_healthy(true);
  }

  FakeRun* const run_;
};

class FakeRun::Reward final : public v1::RewardService::CallbackService {
 public:
  explicit Reward(FakeRun* run) : run_(run) {}
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request, v1::ScoreReply* reply) override {
    return rpc::Reply(context, nullptr, "Score", [&]() -> absl::Status {
      absl::MutexLock lock(&run_->mutex_);
      if (run_->scoring_failures_ > 0) {
        --run_->scoring_failures_;
        return absl::UnavailableError("down");
      }
      run_->heard_.scored.push_back(*request);
      for (int i = 0; i < request->items_size(); ++i) reply->add_scores()->set_reward(i % 2);
      return absl::OkStatus();
    });
  }

 private:
  FakeRun* const run_;
};

class FakeRun::Learner final : public v1::LearnerService::CallbackService {
 public:
  explicit Learner(FakeRun* run) : run_(run) {}
  grpc::ServerUnaryReactor* SubmitGroup(grpc::CallbackServerContext* context,
                                        const v1::SubmitGroupRequest* request,
                                        v1::SubmitGroupReply* reply) override {
    return rpc::Reply(context, nullptr, "SubmitGroup", [&]() -> absl::Status {
      absl::MutexLock lock(&run_->mutex_);
      if (run_->submit_failures_ > 0) {
        --run_->submit_failures_;
        return absl::UnavailableError("down");
      }
      run_->heard_.submitted.push_back(*request);
      reply->set_verdict(run_->verdict_);
      return absl::OkStatus();
    });
  }

 private:
  FakeRun* const run_;
};

FakeRun::FakeRun(const RunSetup& setup)
    : noise_id_(setup.noise_id), model_files_hash_(setup.model_files_hash), config_(setup.config) {
  orchestrator_ = std::make_unique<Orchestrator>(this);
  reward_ = std::make_unique<Reward>(this);
  learner_ = std::make_unique<Learner>(this);
  weights_ = std::make_unique<weights::WeightServiceImpl>(
      weights::WeightServiceOptions{.source = &source_, .model_files = &model_files_});
  reward_server_ = *rpc::RpcServer::Create({.services = {reward_.get()}});
  learner_server_ = *rpc::RpcServer::Create({.services = {learner_.get(), weights_.get()}});
  orchestrator_server_ = *rpc::RpcServer::Create({.services = {orchestrator_.get()}});
}

FakeRun::~FakeRun() {
  orchestrator_server_->Shutdown(absl::ZeroDuration());
  learner_server_->Shutdown(absl::ZeroDuration());
  reward_server_->Shutdown(absl::ZeroDuration());
}

std::shared_ptr<const weights::WeightVersion> FakeRun::Publish(uint64_t timeline, uint64_t version,
                                                               bool damage, uint64_t comm_epoch) {
  const float values[] = {1.0F, static_cast<float>(version)};
  const std::vector<weights::PublishedTensor> tensors = {
      {.spec = {"w", {2}, "float32"}, .bytes = std::as_bytes(std::span(values))}};
  absl::MutexLock lock(&mutex_);
  auto whole = *weights::BuildVersion({.run_id = "run-1",
                                       .timeline = timeline,
                                       .version = version,
                                       .noise_id = noise_id_,
                                       .source_address = learner_server_->address(),
                                       .comm_epoch = comm_epoch,
                                       .model_files_hash = model_files_hash_,
                                       .adapted_base_hash = adapted_base_hash_},
                                      tensors, 1 << 20);
  source_.Publish(whole);
  timeline_ = timeline;
  manifest_ = whole->manifest();
  if (!damage) return whole;
  const uint64_t other[] = {manifest_->buckets(0).xxh3() ^ 1};
  manifest_->mutable_buckets(0)->set_xxh3(other[0]);
  manifest_->set_base_weights_hash(weights::BaseWeightsHash(other));
  return whole;
}

void FakeRun::AnnounceGroup(uint64_t comm_epoch, const std::string& id, uint32_t world_size) {
  absl::MutexLock lock(&mutex_);
  comm_epoch_ = comm_epoch;
  ended_comm_epoch_ = comm_epoch - 1;
  group_.set_id(id);
  group_.set_rank(1);
  group_.set_world_size(world_size);
}
void FakeRun::EndGroups(uint64_t ended) {
  absl::MutexLock lock(&mutex_);
  ended_comm_epoch_ = ended;
  comm_epoch_ = 0;
}

void FakeRun::AddLease(v1::Lease lease) {
  absl::MutexLock lock(&mutex_);
  leases_.push_back(std::move(lease));
}
void FakeRun::SetState(v1::RunState state) {
  absl::MutexLock lock(&mutex_);
  state_ = state;
}
void FakeRun::FailScoring(int times) {
  absl::MutexLock lock(&mutex_);
  scoring_failures_ = times;
}
void FakeRun::FailSubmitting(int times) {
  absl::MutexLock lock(&mutex_);
  submit_failures_ = times;
}
void FakeRun::Verdict(v1::SubmitVerdict verdict) {
  absl::MutexLock lock(&mutex_);
  verdict_ = verdict;
}
void FakeRun::ForeignNoise() {
  absl::MutexLock lock(&mutex_);
  noise_id_ ^= 1;
}

void FakeRun::ForeignModel() {
  absl::MutexLock lock(&mutex_);
  model_files_hash_ ^= 1;
}
void FakeRun::ServeModel(weights::ModelFiles files) {
  TEMPER_CHECK(model_files_.Serve("run-1", std::move(files)).ok(), "the test's files are whole");
}
void FakeRun::ForeignBase() {
  absl::MutexLock lock(&mutex_);
  adapted_base_hash_ ^= 1;
}
void FakeRun::ServeBase(std::shared_ptr<const weights::WeightVersion> base) {
  source_.SetBase(std::move(base));
}
void FakeRun::HideLearner(bool hidden) {
  absl::MutexLock lock(&mutex_);
  learner_hidden_ = hidden;
}

FakeRun::Heard FakeRun::heard() const {
  absl::MutexLock lock(&mutex_);
  Heard heard = heard_;
  heard.leases_left = leases_.size();
  return heard;
}

bool FakeRun::Await(const std::function<bool(const Heard&)>& condition) const {
  absl::MutexLock lock(&mutex_);
  const auto holds = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return condition(heard_); };
  return mutex_.AwaitWithTimeout(absl::Condition(&holds), kPatience);
}

v1::Lease FakeRun::Training(uint64_t lease_id, uint64_t timeline, uint64_t version, int groups) {
  v1::Lease lease;
  lease.set_lease_id(lease_id);
  lease.set_timeline(timeline);
  lease.set_version(version);
  lease.set_lease_seconds(60);
  for (int i = 0; i < groups; ++i) {
    v1::TrainItem& item = *lease.add_train();
    item.mutable_ref()->set_run_id("run-1");
    item.mutable_ref()->set_timeline(timeline);
    item.mutable_ref()->set_group_index(100 * lease_id + static_cast<uint64_t>(i));
    item.mutable_ref()->set_attempt(1);
    item.mutable_problem()->set_prompt("What is 2 plus 3?");
    item.mutable_problem()->set_truth("5");
    item.set_samples(2);
  }
  return lease;
}

v1::Lease FakeRun::Evaluation(uint64_t lease_id, uint64_t timeline, uint64_t version) {
  v1::Lease lease;
  lease.set_lease_id(lease_id);
  lease.set_timeline(timeline);
  lease.set_version(version);
  lease.set_lease_seconds(60);
  v1::EvalItem& item = *lease.mutable_eval();
  item.set_item_index(7);
  item.set_attempt(1);
  item.set_version(version);
  item.set_noise_seed(5);
  item.set_first_question(40);
  item.set_max_completion_tokens(4);
  for (int i = 0; i < 3; ++i) {
    v1::Problem& problem = *item.add_problems();
    problem.set_prompt("What is 2 plus 3?");
    problem.set_truth("5");
  }
  return lease;
}

}  // namespace temper::rollout_worker
