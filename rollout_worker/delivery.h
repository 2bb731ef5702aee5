#pragma once

// The second half of a lease: score, submit group by group, complete. It keeps what was generated
// and tries again until the lease ends, so a reward server or learner that is down for a while
// costs time and no tokens.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rollout_worker/delivery_policy.h"
#include "rollout_worker/lease_messages.h"
#include "rollout_worker/lease_table.h"
#include "rollout_worker/peer_client.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/worker_metrics.h"
#include "services/base/stop_token.h"
#include "services/member/membership_client.h"

namespace temper::rollout_worker {

struct DeliveryOptions {
  const RunSetup* setup = nullptr;
  member::MembershipClient* membership = nullptr;
  PeerClient* peers = nullptr;
  LeaseTable* leases = nullptr;
  WorkerMetrics* metrics = nullptr;
  base::StopToken* halt = nullptr;
};

// One thread. Everything the options point to outlives it.
class Delivery final {
 public:
  explicit Delivery(const DeliveryOptions& options) : options_(options) {}

  // Delivers a lease and closes it in the lease table. Returns early when the lease is lost or
  // `halt` is raised; what is then still held is ended by Leave (drained).
  void Deliver(const GeneratedLease& generated);

  // Tells the orchestrator that every attempt of a lease failed, and closes it.
  void GiveUp(const v1::Lease& lease, v1::Ending ending, const std::string& why);

 private:
  // All scores of the lease, in order. Errors: Cancelled if the lease is lost or the worker halts;
  // FailedPrecondition if the attempts fail with reward_failed.
  absl::StatusOr<v1::ScoreReply> Score(const GeneratedLease& generated);
  absl::StatusOr<v1::ScoreReply> ScoreOnce(const v1::ScoreRequest& request);
  // The completed attempt of group `index`, or Cancelled.
  absl::StatusOr<v1::CompletedAttempt> Submit(const GeneratedLease& generated, int index,
                                              const v1::ScoreReply& scores,
                                              absl::Duration score_time);
  void DeliverTraining(const GeneratedLease& generated, const v1::ScoreReply& scores,
                       absl::Duration score_time);
  void DeliverEvaluation(const GeneratedLease& generated, const v1::ScoreReply& scores);
  void Report(const v1::Lease& lease, const v1::ReportEvalItemRequest& report);
  LeaseStanding Standing(const v1::Lease& lease) const;
  // Waits before try `tries` + 1; false if the worker halts.
  bool BackOff(int tries) const { return !options_.halt->WaitFor(DeliveryBackoff(tries)); }

  const DeliveryOptions options_;
  uint64_t next_server_ = 0;  // round-robin over reward servers
};

// What the heartbeats say now, for LeaseTable::Check.
LeaseWeather WeatherOf(const member::MembershipClient& membership);

}  // namespace temper::rollout_worker
