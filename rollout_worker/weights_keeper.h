#pragma once

// Keeps the sampler on the newest weight version: a thread that hears of versions, brings,
// verifies, installs and acknowledges them. Generation goes on meanwhile.

#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "rollout_worker/broadcast_seat.h"
#include "rollout_worker/peer_client.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"
#include "rollout_worker/weights_policy.h"
#include "rollout_worker/worker_metrics.h"
#include "services/base/stop_token.h"
#include "services/member/membership_client.h"
#include "weights/weight_client.h"

namespace temper::rollout_worker {

struct WeightsKeeperOptions {
  const RunSetup* setup = nullptr;
  member::MembershipClient* membership = nullptr;
  PeerClient* peers = nullptr;
  Sampler* sampler = nullptr;
  WorkerMetrics* metrics = nullptr;
  std::shared_ptr<weights::CollectiveBackEnd> back_end;  // of broadcast groups; null: all is pulled
  rpc::TlsOptions tls;
  // Raised by the owner to end the thread, and by the keeper when it cannot go on (see failure()).
  base::StopToken* halt = nullptr;
};

// Everything the options point to outlives it. Thread-safe. Start it once; Stop (or destruction)
// ends the thread: the owner raises `halt` first.
//
// A version is sampled with only between its acknowledgement and its successor's installation:
//   hear -> receive in a broadcast group, or pull (deadlines, three tries of the hash) -> install
//   into the engine's shadow
//        -> acknowledge -> held
// An exact lease (synchronous training, evaluation) holds installation back while it generates.
class WeightsKeeper final {
 public:
  explicit WeightsKeeper(WeightsKeeperOptions options);
  ~WeightsKeeper();

  void Start();
  void Stop();

  // The version that may be sampled with, if any.
  std::optional<VersionKey> Held() const;

  // Waits until the held version differs from `seen` or is the newest that is out, at most until
  // `deadline` or a halt; returns it.
  std::optional<VersionKey> AwaitHeld(const std::optional<VersionKey>& seen,
                                      absl::Time deadline) const;

  // Claims weights for a lease and returns them: whatever is installed afterwards, they are what
  // was acknowledged. exact: `wanted` itself must be held, and nothing is installed until EndUse.
  // Otherwise any version of wanted's timeline that is not older will do. Waits out an installation
  // in progress, at most until `deadline`. Errors: FailedPrecondition, with both versions;
  // DeadlineExceeded.
  absl::StatusOr<model::InstalledWeights> BeginUse(const VersionKey& wanted, bool exact,
                                                   absl::Time deadline);
  void EndUse();

  // The held weights, if they are of `timeline`; null otherwise.
  model::InstalledWeights HeldWeights(uint64_t timeline) const;

  // Whether a version newer than `version` is held and may be taken up between two decode steps.
  bool NewerThan(uint64_t timeline, uint64_t version) const;

  // Why the keeper halted the worker: DataLoss if bytes failed their hash three times,
  // InvalidArgument if the weights, the noise, the model files or the base are not those this
  // worker was set up with, or if AQN changed no norm. OK otherwise.
  absl::Status failure() const;

 private:
  void Run();
  // Brings, installs and acknowledges one version. Errors end this try only, or (see failure) all.
  absl::Status Fetch(const VersionKey& wanted);
  absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> Bring(const VersionKey& wanted,
                                                                      const v1::Manifest& manifest);
  absl::Status InstallAndAcknowledge(const weights::WeightVersion& version);
  absl::Status Acknowledge(const weights::WeightVersion& version,
                           const numerics::AqnReport& report);
  // The orchestrator had forgotten this worker, and so what it had acknowledged: says it again, or
  // else lets go of the version, which is then brought anew.
  void AcknowledgeAgain();
  void LetGo() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Fatal(const absl::Status& status) const;

  const WeightsKeeperOptions options_;
  weights::WeightClient pull_;
  const std::unique_ptr<BroadcastSeat> seat_;  // null: all is pulled
  std::thread thread_;                         // runs Run
  std::optional<VersionKey> refused_;  // whose acknowledgement was refused last; the thread's own
  int refusals_ = 0;                   // of that version
  uint64_t rejoins_ = 0;               // the membership's, when last looked at; the thread's own
  v1::AcknowledgeWeightsRequest acknowledged_;  // of the held version; the thread's own
  mutable absl::Mutex mutex_;
  std::optional<VersionKey> held_ ABSL_GUARDED_BY(mutex_);
  model::InstalledWeights held_weights_ ABSL_GUARDED_BY(mutex_);  // null unless held_
  bool exact_in_use_ ABSL_GUARDED_BY(mutex_) = false;
  bool installing_ ABSL_GUARDED_BY(mutex_) = false;
  bool halted_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::rollout_worker
