#pragma once

// The worker's calls to its peers, each with a deadline, one attempt unless said otherwise. The
// loops that try again stand with those who know how long that has a point.

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/stop_token.h"
#include "services/rpc/client.h"
#include "temper/v1/learner.grpc.pb.h"
#include "temper/v1/orchestrator.grpc.pb.h"
#include "temper/v1/reward.grpc.pb.h"

namespace temper::rollout_worker {

struct PeerClientOptions {
  std::shared_ptr<grpc::Channel> orchestrator;  // the membership's
  std::string run_id;
  std::string member_id;
  uint64_t incarnation = 0;
  rpc::TlsOptions tls;
  base::StopToken* stop = nullptr;     // cancels calls in flight; outlives the client
  rpc::RpcMetrics* metrics = nullptr;  // may be null
};

// Thread-safe. Channels to reward servers and the learner are kept by address.
class PeerClient final {
 public:
  explicit PeerClient(PeerClientOptions options);
  ~PeerClient();

  // Fields that name the run and this member are filled in here.
  absl::StatusOr<v1::AcquireWorkReply> AcquireWork(v1::AcquireWorkRequest request);
  absl::StatusOr<v1::Manifest> GetManifest(uint64_t timeline, uint64_t version);
  absl::StatusOr<v1::AcknowledgeWeightsReply> AcknowledgeWeights(
      v1::AcknowledgeWeightsRequest request);
  // How to meet the broadcast group of an epoch; asked again until `deadline` while it is not
  // announced. Errors: those of the proto.
  absl::StatusOr<v1::GetBroadcastGroupReply> GetBroadcastGroup(uint64_t timeline,
                                                               uint64_t comm_epoch,
                                                               absl::Time deadline);
  // Tried again for up to ten seconds: a lost report costs the whole item or holds a slot until the
  // lease ends.
  absl::Status CompleteWork(v1::CompleteWorkRequest request);
  absl::StatusOr<v1::ReportEvalItemReply> ReportEvalItem(v1::ReportEvalItemRequest request);

  absl::StatusOr<v1::ScoreReply> Score(const std::string& address, const v1::ScoreRequest& request,
                                       absl::Duration timeout);
  absl::StatusOr<v1::SubmitGroupReply> SubmitGroup(const std::string& address,
                                                   const v1::SubmitGroupRequest& request,
                                                   absl::Duration timeout);

 private:
  struct Peer;  // stubs over one channel
  absl::StatusOr<std::shared_ptr<Peer>> PeerAt(const std::string& address);
  rpc::CallOptions Call(std::string_view method, absl::Duration timeout, int attempts = 1) const;

  const PeerClientOptions options_;
  const std::unique_ptr<v1::OrchestratorService::Stub> orchestrator_;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Peer>> peers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::rollout_worker
