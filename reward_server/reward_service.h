#pragma once

// The gRPC face of the reward server, and the conversion of its messages.

#include "absl/status/statusor.h"
#include "reward_server/batch_scorer.h"
#include "services/base/clock.h"
#include "services/rpc/reply.h"
#include "temper/v1/reward.grpc.pb.h"

namespace temper::reward_server {

// A batch of our own from a request. The tail and the truth of each sample are copied, the rest of
// the text is not.
// Returns: InvalidArgument (unknown rule, a timeout that is not above 0, a factor below 0 or not
// finite, an empty truth), ResourceExhausted (more samples or bytes than batch_scorer.h allows).
absl::StatusOr<Batch> DecodeScoreRequest(const v1::ScoreRequest& request, absl::Time arrival);

// Writes one SampleScore per outcome, in order.
void EncodeScoreReply(const Batch& batch, const std::vector<SampleOutcome>& outcomes,
                      v1::ScoreReply* reply);

// Stateless: a batch that comes twice is scored twice, with the same result. Handlers never wait;
// answers come from the scorer's threads. Thread-safe.
class RewardService final : public v1::RewardService::CallbackService {
 public:
  // Both outlive the service. `rpc_metrics` may be null.
  RewardService(BatchScorer* scorer, rpc::RpcMetrics* rpc_metrics,
                base::Clock* clock = base::SystemClock())
      : scorer_(scorer), rpc_metrics_(rpc_metrics), clock_(clock) {}

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request, v1::ScoreReply* reply) override;

 private:
  BatchScorer* const scorer_;
  rpc::RpcMetrics* const rpc_metrics_;
  base::Clock* const clock_;
};

}  // namespace temper::reward_server
