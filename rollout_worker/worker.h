#pragma once

// The rollout worker: three threads around one engine.
//
//   weights   hears of a version, brings it, verifies, installs, acknowledges    (WeightsKeeper)
//   work      acquires a lease and generates it                                  (RolloutWorker)
//   delivery  scores, submits and completes the lease generated before           (Delivery)
//
// Between work and delivery stands a queue of one lease: the next lease is generated while the last
// one is scored; work waits when delivery is behind.

#include <memory>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "rollout_worker/delivery.h"
#include "rollout_worker/lease_messages.h"
#include "rollout_worker/lease_table.h"
#include "rollout_worker/peer_client.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"
#include "rollout_worker/weights_keeper.h"
#include "rollout_worker/worker_metrics.h"
#include "services/base/bounded_queue.h"
#include "services/base/stop_token.h"
#include "services/member/membership_client.h"

namespace temper::rollout_worker {

struct WorkerOptions {
  member::MembershipClient* membership = nullptr;
  const RunSetup* setup = nullptr;
  Sampler* sampler = nullptr;
  metrics::MetricsRegistry* registry = nullptr;
  rpc::RpcMetrics* rpc_metrics = nullptr;                // may be null
  std::shared_ptr<weights::CollectiveBackEnd> back_end;  // of broadcast groups; null: all is pulled
  rpc::TlsOptions tls;
  // Ends the worker: raised by a signal, by the membership when the run is over or the orchestrator
  // asks to drain (MembershipOptions::leave_signal), or by the worker itself when it cannot go on.
  base::StopToken* stop = nullptr;
  absl::Duration poll = absl::Seconds(5);  // long poll for work; at most 10 s
};

// Everything the options point to outlives it. Run it once, on one thread.
class RolloutWorker final {
 public:
  explicit RolloutWorker(const WorkerOptions& options);
  ~RolloutWorker();

  // Works until `stop` is raised; then no more leases are acquired, generation ends at the next
  // decode step, threads are joined, and what is held is handed back by leaving the run (its
  // attempts end drained). Returns OK after an ordinary end (drained, or the run is over); what the
  // membership says if it was cut off; DataLoss or InvalidArgument if the weights could not be
  // used.
  absl::Status Run();

 private:
  void Work();
  void DeliverQueued();
  // One long poll, with the version that was held then in `asked`. An absent lease is no error.
  absl::StatusOr<v1::AcquireWorkReply> Acquire(std::optional<VersionKey>* asked);
  void Carry(const v1::Lease& lease);
  absl::StatusOr<GeneratedLease> Generate(const v1::Lease& lease);
  model::StepDecision BetweenSteps(const v1::Lease& lease, bool exact, uint64_t version_in_use);
  void HandOver(GeneratedLease generated);

  const WorkerOptions options_;
  WorkerMetrics metrics_;
  PeerClient peers_;
  LeaseTable leases_;
  WeightsKeeper keeper_;
  Delivery delivery_;
  base::BoundedQueue<GeneratedLease> generated_;
  std::thread delivery_thread_;  // runs DeliverQueued
  std::thread work_thread_;      // runs Work
};

}  // namespace temper::rollout_worker
