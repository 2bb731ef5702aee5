#pragma once

// A whole run in one process: the real coordinator and ledger, the real learner, the real decode
// engines and the real scorer, joined by function calls where processes would use the network. No
// ports, no sleeps; the orchestrator's clock is moved by hand.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "learner/group_store.h"
#include "learner/learner_metrics.h"
#include "learner/learner_options.h"
#include "learner/orchestrator_link.h"
#include "learner/policy_files.h"
#include "learner/policy_trainer.h"
#include "learner/submission_desk.h"
#include "orchestrator/coordinator.h"
#include "reward_server/batch_scorer.h"
#include "rollout_worker/run_setup.h"
#include "rollout_worker/sampler.h"
#include "services/base/stop_token.h"
#include "tests/support/fake_clock.h"
#include "weights/weight_source.h"

namespace temper::testing {

// Counts what has happened, so that whoever has nothing to do can wait for the next thing.
// Thread-safe.
class Happenings final {
 public:
  uint64_t count() const;
  void Note();
  // Whether more than `seen` have happened, at the latest after 30 s of real time.
  bool AwaitAfter(uint64_t seen) const;

 private:
  mutable absl::Mutex mutex_;
  uint64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The learner's calls, straight into the coordinator. Thread-safe.
class CoordinatorLink final : public learner::OrchestratorLink {
 public:
  CoordinatorLink(orchestrator::Coordinator* coordinator, std::string ledger_path,
                  Happenings* happenings)
      : coordinator_(coordinator), ledger_path_(std::move(ledger_path)), happenings_(happenings) {}
  absl::StatusOr<v1::BeginTimelineReply> BeginTimeline(const v1::BeginTimelineRequest& request,
                                                       absl::Time deadline) override;
  absl::StatusOr<v1::AdmitGroupReply> AdmitGroup(const v1::AdmitGroupRequest& request,
                                                 absl::Time deadline) override;
  absl::StatusOr<v1::CommitStepReply> CommitStep(const v1::CommitStepRequest& request,
                                                 absl::Time deadline) override;
  absl::StatusOr<v1::PublishManifestReply> PublishManifest(
      const v1::PublishManifestRequest& request, absl::Time deadline) override;
  absl::Status FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                  absl::Time) override;
  absl::Status EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request, absl::Time) override;
  absl::Status SnapshotLedger(const v1::SnapshotLedgerRequest& request, const std::string& path,
                              absl::Time deadline) override;
  absl::Status StopRun(const v1::StopRunRequest& request, absl::Time deadline) override;

 private:
  orchestrator::Coordinator* const coordinator_;
  const std::string ledger_path_;
  Happenings* const happenings_;
};

// Used by one thread, which plays the rollout workers; the learner has a thread of its own.
class InProcessRun final {
 public:
  // Changes a submission before it is handed in; the test's way to damage one.
  using Tamper = std::function<void(v1::SubmitGroupRequest*)>;

  // config: resolved, run_dir an existing empty folder.
  static absl::StatusOr<std::unique_ptr<InProcessRun>> Start(const v1::RunConfig& config);
  ~InProcessRun();

  // Another rollout worker joins; returns its number.
  absl::StatusOr<int> AddWorker();
  // One worker does one thing: installs a version, carries a lease through, or finds nothing to do
  // (false).
  absl::StatusOr<bool> Turn(int worker);
  // A worker takes a lease and is never heard of again. False: there was none to take.
  absl::StatusOr<bool> TakeAndVanish(int worker);
  // The orchestrator's time passes; everybody but the vanished says that they live.
  void Pass(absl::Duration duration);
  // All workers in turn until the run has finished.
  absl::Status PlayToTheEnd();

  // For a caller who finds nothing to do: how much has happened, and a wait for more (false:
  // nothing more within 30 s).
  uint64_t happened() const { return happenings_.count(); }
  bool AwaitAfter(uint64_t seen) const { return happenings_.AwaitAfter(seen); }

  void set_tamper(Tamper tamper) { tamper_ = std::move(tamper); }
  orchestrator::Coordinator& coordinator() { return *coordinator_; }
  // Every step's line of metrics.jsonl.
  std::vector<std::string> MetricsLines();
  // base_weights_hash of each.
  std::vector<std::string> WeightHashes();
  // Bytes of all versions that workers installed.
  uint64_t installed_bytes() const { return installed_bytes_; }
  // Attempts by ending, and "attempts_leased".
  uint64_t Attempts(const std::string& ending);

 private:
  struct Worker {
    std::string id;
    std::unique_ptr<rollout_worker::Sampler> sampler;
    bool has_version = false;
    uint64_t timeline = 0;
    uint64_t version = 0;
    bool vanished = false;
  };

  InProcessRun() = default;
  absl::Status Open(const v1::RunConfig& config);
  absl::Status OpenLearner(const v1::RunConfig& config);
  absl::Status ServeBase();
  absl::Status Join(v1::Role role, const std::string& id);
  absl::StatusOr<v1::AcquireWorkReply> Acquire(const Worker& worker);
  absl::Status Install(Worker* worker, uint64_t timeline, uint64_t version);
  absl::Status Carry(const Worker& worker, const v1::Lease& lease);
  absl::StatusOr<v1::ScoreReply> Score(const v1::ScoreRequest& request);
  absl::Status Submit(v1::SubmitGroupRequest submission);
  absl::Status EndIfDue();

  FakeClock clock_;
  Happenings happenings_;
  base::StopToken stop_;
  metrics::MetricsRegistry registry_;
  std::unique_ptr<orchestrator::OrchestratorMetrics> orchestrator_metrics_;
  std::unique_ptr<orchestrator::LedgerStore> store_;
  std::unique_ptr<orchestrator::RunFiles> files_;
  std::unique_ptr<orchestrator::Coordinator> coordinator_;
  std::unique_ptr<CoordinatorLink> link_;
  std::unique_ptr<reward_server::RewardMetrics> reward_metrics_;
  std::unique_ptr<reward_server::BatchScorer> scorer_;
  std::unique_ptr<rollout_worker::RunSetup> setup_;
  std::vector<Worker> workers_;
  uint64_t installed_bytes_ = 0;
  Tamper tamper_;

  learner::LearnerMetrics learner_metrics_{&registry_};
  learner::PolicyFiles policy_files_;
  learner::LearnerOptions learner_options_;
  std::unique_ptr<learner::PolicyTrainer> trainer_;
  std::unique_ptr<learner::GroupStore> groups_;
  std::unique_ptr<learner::SubmissionDesk> desk_;
  weights::WeightSource source_;
  absl::Status trained_;  // how the learner's loop ended; read after the join
  std::thread learner_;
};

}  // namespace temper::testing
