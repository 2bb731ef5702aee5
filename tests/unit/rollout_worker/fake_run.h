#pragma once

// A run around one worker: orchestrator, reward server and learner as real gRPC services on
// loopback that keep the wire's contract and answer as a test says.

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "rollout_worker/run_setup.h"
#include "services/rpc/server.h"
#include "temper/v1/learner.grpc.pb.h"
#include "temper/v1/orchestrator.grpc.pb.h"
#include "temper/v1/reward.grpc.pb.h"
#include "weights/model_files.h"
#include "weights/weight_service.h"
#include "weights/weight_source.h"

namespace temper::rollout_worker {

// Thread-safe. Everything it heard can be read at any time; Await waits for it.
class FakeRun final {
 public:
  // setup: of the worker under test; its configuration is what JoinReply hands out.
  explicit FakeRun(const RunSetup& setup);
  ~FakeRun();

  std::string orchestrator_address() const { return orchestrator_server_->address(); }

  // Brings a version of a one-tensor model out and returns it. `damage`: its bytes do not have
  // their hash. `comm_epoch`: the broadcast group that its manifest names.
  std::shared_ptr<const weights::WeightVersion> Publish(uint64_t timeline, uint64_t version,
                                                        bool damage = false,
                                                        uint64_t comm_epoch = 0);
  // Whoever asks for the group of this epoch has rank 1 in it; world_size 0: has no seat.
  void AnnounceGroup(uint64_t comm_epoch, const std::string& id, uint32_t world_size);
  void EndGroups(uint64_t ended);  // heartbeats say so
  void AddLease(v1::Lease lease);
  void SetState(v1::RunState state);
  void FailScoring(int times);     // the next so many calls answer Unavailable
  void FailSubmitting(int times);  // likewise
  void Verdict(v1::SubmitVerdict verdict);
  void ForeignNoise();  // manifests name another noise id
  void ForeignModel();  // manifests name other model files
  void ForeignBase();   // manifests are of adapters, on a base that nobody holds
  // The frozen base of adapters, to be pulled once the model is served.
  void ServeBase(std::shared_ptr<const weights::WeightVersion> base);
  // The learner has read its policy: until then PullModelFiles answers Unavailable.
  void ServeModel(weights::ModelFiles files);
  // The learner joins the run; it has from the start unless HideLearner was called.
  void HideLearner(bool hidden);

  // What was heard so far.
  struct Heard {
    std::vector<v1::AcknowledgeWeightsRequest> acknowledged;
    std::vector<v1::AcquireWorkRequest> acquired;
    std::vector<v1::SubmitGroupRequest> submitted;
    std::vector<v1::CompletedAttempt> completed;
    std::vector<v1::ReportEvalItemRequest> reports;
    std::vector<v1::ScoreRequest> scored;
    std::vector<v1::GetBroadcastGroupRequest> asked_for_group;  // that were announced
    std::vector<v1::GroupRef> holding;                          // of the last heartbeat
    size_t leases_left = 0;
    bool left = false;
  };
  Heard heard() const;
  // Waits until `condition` holds of what was heard; false after 20 s.
  bool Await(const std::function<bool(const Heard&)>& condition) const;

  // A lease of `groups` training groups or of an evaluation item, as the orchestrator makes them.
  static v1::Lease Training(uint64_t lease_id, uint64_t timeline, uint64_t version, int groups);
  static v1::Lease Evaluation(uint64_t lease_id, uint64_t timeline, uint64_t version);

 private:
  class Orchestrator;
  class Reward;
  class Learner;

  mutable absl::Mutex mutex_;
  Heard heard_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::Lease> leases_ ABSL_GUARDED_BY(mutex_);
  v1::RunState state_ ABSL_GUARDED_BY(mutex_) = v1::RUN_STATE_TRAINING;
  uint64_t timeline_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<v1::Manifest> manifest_ ABSL_GUARDED_BY(mutex_);
  uint64_t comm_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t ended_comm_epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::GetBroadcastGroupReply group_ ABSL_GUARDED_BY(mutex_);
  int scoring_failures_ ABSL_GUARDED_BY(mutex_) = 0;
  int submit_failures_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::SubmitVerdict verdict_ ABSL_GUARDED_BY(mutex_) = v1::SUBMIT_VERDICT_ADMITTED;
  uint64_t noise_id_ ABSL_GUARDED_BY(mutex_);
  uint64_t model_files_hash_ ABSL_GUARDED_BY(mutex_);
  uint64_t adapted_base_hash_ ABSL_GUARDED_BY(mutex_) = 0;
  bool learner_hidden_ ABSL_GUARDED_BY(mutex_) = false;
  const v1::RunConfig config_;

  weights::WeightSource source_;
  weights::ModelFileSource model_files_;
  std::unique_ptr<Orchestrator> orchestrator_;
  std::unique_ptr<Reward> reward_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<weights::WeightServiceImpl> weights_;
  std::unique_ptr<rpc::RpcServer> orchestrator_server_;
  std::unique_ptr<rpc::RpcServer> reward_server_;
  std::unique_ptr<rpc::RpcServer> learner_server_;
};

}  // namespace temper::rollout_worker
