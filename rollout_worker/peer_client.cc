#include "rollout_worker/peer_client.h"

#include <utility>

#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::rollout_worker {
namespace {

// A long poll is answered after this at the latest (the proto's bound is 10 s).
constexpr absl::Duration kPollMargin = absl::Seconds(10);
constexpr absl::Duration kControlTimeout = absl::Seconds(5);
// Peers come and go with restarts; more addresses than this at once means a broken peer list.
constexpr size_t kMaxPeers = 256;

}  // namespace

struct PeerClient::Peer {
  std::unique_ptr<v1::RewardService::Stub> reward;
  std::unique_ptr<v1::LearnerService::Stub> learner;
};

PeerClient::PeerClient(PeerClientOptions options)
    : options_(std::move(options)),
      orchestrator_(v1::OrchestratorService::NewStub(options_.orchestrator)) {}
PeerClient::~PeerClient() = default;

rpc::CallOptions PeerClient::Call(std::string_view method, absl::Duration timeout,
                                  int attempts) const {
  return {.method = method,
          .timeout = timeout,
          .retry = {.max_attempts = attempts},
          .jitter_key = base::Hash64(options_.member_id),
          .stop = options_.stop,
          .metrics = options_.metrics};
}

absl::StatusOr<std::shared_ptr<PeerClient::Peer>> PeerClient::PeerAt(const std::string& address) {
  absl::MutexLock lock(&mutex_);
  const auto found = peers_.find(address);
  if (found != peers_.end()) return found->second;
  TEMPER_ASSIGN_OR_RETURN(auto channel, rpc::MakeChannel(address, options_.tls));
  if (peers_.size() >= kMaxPeers) peers_.clear();
  auto peer = std::make_shared<Peer>(
      Peer{v1::RewardService::NewStub(channel), v1::LearnerService::NewStub(channel)});
  peers_[address] = peer;
  return peer;
}

absl::StatusOr<v1::AcquireWorkReply> PeerClient::AcquireWork(v1::AcquireWorkRequest request) {
  request.set_run_id(options_.run_id);
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  v1::AcquireWorkReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(
      orchestrator_.get(), &v1::OrchestratorService::Stub::AcquireWork, request, &reply,
      Call("AcquireWork", absl::Seconds(request.wait_seconds()) + kPollMargin)));
  return reply;
}

absl::StatusOr<v1::Manifest> PeerClient::GetManifest(uint64_t timeline, uint64_t version) {
  v1::GetManifestRequest request;
  request.set_run_id(options_.run_id);
  request.set_timeline(timeline);
  request.set_version(version);
  v1::GetManifestReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(orchestrator_.get(),
                                        &v1::OrchestratorService::Stub::GetManifest, request,
                                        &reply, Call("GetManifest", kControlTimeout)));
  return std::move(*reply.mutable_manifest());
}

absl::StatusOr<v1::AcknowledgeWeightsReply> PeerClient::AcknowledgeWeights(
    v1::AcknowledgeWeightsRequest request) {
  request.set_run_id(options_.run_id);
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  v1::AcknowledgeWeightsReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(orchestrator_.get(),
                                        &v1::OrchestratorService::Stub::AcknowledgeWeights, request,
                                        &reply, Call("AcknowledgeWeights", kControlTimeout)));
  return reply;
}

absl::StatusOr<v1::GetBroadcastGroupReply> PeerClient::GetBroadcastGroup(uint64_t timeline,
                                                                         uint64_t comm_epoch,
                                                                         absl::Time deadline) {
  v1::GetBroadcastGroupRequest request;
  request.set_run_id(options_.run_id);
  request.set_timeline(timeline);
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  request.set_comm_epoch(comm_epoch);
  v1::GetBroadcastGroupReply reply;
  rpc::CallOptions options = Call("GetBroadcastGroup", kControlTimeout, 1'000'000);
  options.deadline = deadline;  // ends the attempts
  options.retry.initial_backoff = absl::Milliseconds(5);
  options.retry.max_backoff = absl::Milliseconds(50);
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(orchestrator_.get(),
                                        &v1::OrchestratorService::Stub::GetBroadcastGroup, request,
                                        &reply, options));
  return reply;
}

absl::Status PeerClient::CompleteWork(v1::CompleteWorkRequest request) {
  request.set_run_id(options_.run_id);
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  v1::CompleteWorkReply reply;
  rpc::CallOptions options = Call("CompleteWork", kControlTimeout, 20);
  options.deadline = options.clock->Now() + 2 * kControlTimeout;
  return rpc::CallUnary(orchestrator_.get(), &v1::OrchestratorService::Stub::CompleteWork, request,
                        &reply, options);
}

absl::StatusOr<v1::ReportEvalItemReply> PeerClient::ReportEvalItem(
    v1::ReportEvalItemRequest request) {
  request.set_run_id(options_.run_id);
  request.set_member_id(options_.member_id);
  request.set_incarnation(options_.incarnation);
  v1::ReportEvalItemReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(orchestrator_.get(),
                                        &v1::OrchestratorService::Stub::ReportEvalItem, request,
                                        &reply, Call("ReportEvalItem", kControlTimeout)));
  return reply;
}

absl::StatusOr<v1::ScoreReply> PeerClient::Score(const std::string& address,
                                                 const v1::ScoreRequest& request,
                                                 absl::Duration timeout) {
  TEMPER_ASSIGN_OR_RETURN(const std::shared_ptr<Peer> peer, PeerAt(address));
  v1::ScoreReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(peer->reward.get(), &v1::RewardService::Stub::Score,
                                        request, &reply, Call("Score", timeout)));
  return reply;
}

absl::StatusOr<v1::SubmitGroupReply> PeerClient::SubmitGroup(const std::string& address,
                                                             const v1::SubmitGroupRequest& request,
                                                             absl::Duration timeout) {
  TEMPER_ASSIGN_OR_RETURN(const std::shared_ptr<Peer> peer, PeerAt(address));
  v1::SubmitGroupReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(peer->learner.get(), &v1::LearnerService::Stub::SubmitGroup,
                                        request, &reply, Call("SubmitGroup", timeout)));
  return reply;
}

}  // namespace temper::rollout_worker
