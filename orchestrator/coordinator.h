#pragma once

// The run as one object: members, ledger, versions, evaluation, the end. Each method is one
// message; the decisions are the pure functions of this room, this class gathers what they look at,
// obeys, and writes down what changed.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "orchestrator/acknowledgement.h"
#include "orchestrator/broadcast_group.h"
#include "orchestrator/eval_ledger.h"
#include "orchestrator/lease_policy.h"
#include "orchestrator/ledger.h"
#include "orchestrator/ledger_store.h"
#include "orchestrator/membership.h"
#include "orchestrator/orchestrator_metrics.h"
#include "orchestrator/run_files.h"
#include "orchestrator/run_plan.h"
#include "orchestrator/summary.h"
#include "prompts/prompt_order.h"
#include "services/base/clock.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::orchestrator {

struct CoordinatorOptions {
  RunPlan plan;
  std::string run_id;
  LedgerStore* store = nullptr;  // these outlive the coordinator
  RunFiles* files = nullptr;
  OrchestratorMetrics* metrics = nullptr;
  bool go_on = false;  // a person resumes: a run that was stopped or had failed goes on
  base::Clock* clock = base::SystemClock();
};

// Thread-safe: one mutex around the state; under it nothing waits but SQLite. The changing methods
// may be called twice with the same message, also across a restart: the second does no harm.
// Errors of all: those of SqlDatabase (Unavailable, ResourceExhausted: nothing has changed);
// InvalidArgument for a malformed message; FailedPrecondition for another run's. What a method
// returns beyond that is said in proto/temper/v1/orchestrator.proto.
class Coordinator final {
 public:
  // Reads the ledger. A run that has ended stays ended, and its end is told again to whoever asks;
  // with options.go_on one that was stopped or had failed goes on, a finished one stays finished.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(CoordinatorOptions options);

  absl::Status Join(const v1::JoinRequest& request, v1::JoinReply* reply);
  absl::Status Heartbeat(const v1::HeartbeatRequest& request, v1::HeartbeatReply* reply);
  absl::Status Leave(const v1::LeaveRequest& request, v1::LeaveReply* reply);

  // One look for work; never waits. reply->has_lease() says whether there was some, else the
  // reason. first_look: of this call, as against a long poll that looks again.
  absl::Status AcquireWork(const v1::AcquireWorkRequest& request, bool first_look,
                           v1::AcquireWorkReply* reply);
  // The lease could not be delivered: its attempts end drained and are free at once.
  void TakeBack(const v1::Lease& lease);
  void CountNoWork(const std::string& reason) { options_.metrics->CountNoWork(reason); }
  absl::Status CompleteWork(const v1::CompleteWorkRequest& request, v1::CompleteWorkReply* reply);
  absl::Status ReportEvalItem(const v1::ReportEvalItemRequest& request,
                              v1::ReportEvalItemReply* reply);
  absl::Status AcknowledgeWeights(const v1::AcknowledgeWeightsRequest& request,
                                  v1::AcknowledgeWeightsReply* reply);
  absl::Status GetManifest(const v1::GetManifestRequest& request, v1::GetManifestReply* reply);

  absl::Status BeginTimeline(const v1::BeginTimelineRequest& request,
                             v1::BeginTimelineReply* reply);
  absl::Status AdmitGroup(const v1::AdmitGroupRequest& request, v1::AdmitGroupReply* reply);
  absl::Status CommitStep(const v1::CommitStepRequest& request, v1::CommitStepReply* reply);
  absl::Status PublishManifest(const v1::PublishManifestRequest& request,
                               v1::PublishManifestReply* reply);
  absl::Status FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                  v1::FormBroadcastGroupReply* reply);
  absl::Status EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                 v1::EndBroadcastGroupReply* reply);
  absl::Status GetBroadcastGroup(const v1::GetBroadcastGroupRequest& request,
                                 v1::GetBroadcastGroupReply* reply);

  // Whether the caller may have a copy of the ledger; making it needs no lock of ours.
  absl::Status MaySnapshot(const v1::SnapshotLedgerRequest& request);

  absl::Status GetStatus(const v1::GetStatusRequest& request, v1::GetStatusReply* reply);
  absl::Status SetDesired(const v1::SetDesiredRequest& request, v1::SetDesiredReply* reply);
  absl::Status StopRun(const v1::StopRunRequest& request, v1::StopRunReply* reply);

  // Does what is due by now: silent members, expired leases, waits that have become too long.
  // Returns when to come again at the latest.
  absl::Time Tick();

  // The end is written by the ticker, outside the lock: what the summary is made of, once all is
  // done or the run has ended otherwise and the summary is not written yet; then SummaryWritten,
  // which makes a run that was complete FINISHED.
  absl::StatusOr<std::optional<SummaryInputs>> SummaryDue();
  absl::Status SummaryWritten(const std::string& summary_json);

  // Whether the run is over, its summary written, every member gone, and whoever watches has been
  // told by GetStatus (or has not asked for some seconds): the process may end.
  bool MayExit();
  // Whether a process that is asked to stop may do so at once: the run goes on (members wait for
  // the next orchestrator), or every member has heard of its end and left.
  bool NobodyWaits();
  v1::RunState state();
  std::vector<v1::Peer> LiveMembers();  // with healthy set
  absl::Status VerifyAccounting();

 private:
  enum class Ended : uint8_t { kNo = 0, kFinished = 1, kStopped = 2, kFailed = 3 };

  explicit Coordinator(CoordinatorOptions options);
  absl::Status Load();
  absl::Status LoadEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time Now() const { return options_.clock->Now(); }

  // Checks shared by messages. NotFound: not a member (join again).
  absl::Status CheckRun(const std::string& run_id) const;
  absl::StatusOr<Member*> CheckMember(const std::string& run_id, const std::string& member_id,
                                      uint64_t incarnation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckLearner(uint64_t incarnation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // what: the subject of the error, an Aborted.
  absl::Status CheckTimeline(std::string_view what, uint64_t timeline) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  v1::RunState State() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsComplete() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<v1::Peer> Peers(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  StepSnapshot Step() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  WorkSnapshot Work(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillProgress(v1::StepProgress* progress) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RefreshMetrics(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Status End(Ended ended, const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends attempts for one reason, each group as DecideRetry says; may fail the run.
  absl::Status EndAttempts(const std::vector<AttemptId>& ids, Ending ending,
                           const std::string& detail) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends what an asynchronous run leased or admitted for steps that will not come.
  absl::Status EndLeftovers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FailItem(uint64_t item_index, Ending ending, const std::string& detail)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReleaseHeld(const Member& member, Ending ending, const std::string& detail)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LeaseGroups(const LeaseDecision& decision, const Member& worker, absl::Time now,
                           v1::Lease* lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LeaseItem(const LeaseDecision& decision, const Member& worker, absl::Time now,
                         v1::Lease* lease) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CloseStep(const v1::CommitStepRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ApplyLastCommit(const v1::BeginTimelineRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RecordManifest(const v1::Manifest& manifest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeOutcomes(const v1::ReportEvalItemRequest& request, const EvalItemRow& item,
                            v1::ReportEvalItemReply* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireMembers(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireLeases(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WatchWorkers(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WatchDisk(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WatchTraining(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FillEvaluations(v1::GetStatusReply* reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CoordinatorOptions options_;
  const RunPlan& plan_;  // options_.plan
  const absl::Time born_;

  absl::Mutex mutex_;
  std::unique_ptr<Ledger> ledger_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<EvalLedger> evals_ ABSL_GUARDED_BY(mutex_);
  prompts::PromptOrder order_ ABSL_GUARDED_BY(mutex_);
  Members members_ ABSL_GUARDED_BY(mutex_);
  std::map<Role, uint32_t> desired_ ABSL_GUARDED_BY(mutex_);
  Ended ended_ ABSL_GUARDED_BY(mutex_) = Ended::kNo;
  std::string end_reason_ ABSL_GUARDED_BY(mutex_);
  std::string summary_json_ ABSL_GUARDED_BY(mutex_);  // once written
  absl::Time summarized_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool end_told_ ABSL_GUARDED_BY(mutex_) = false;  // by GetStatus, with the summary
  uint64_t learner_incarnation_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, v1::Manifest> manifests_ ABSL_GUARDED_BY(mutex_);  // of this timeline
  std::map<uint64_t, Acknowledgement> first_acknowledged_ ABSL_GUARDED_BY(mutex_);
  BroadcastGroups groups_ ABSL_GUARDED_BY(mutex_);           // of this timeline
  std::set<uint64_t> items_let_go_ ABSL_GUARDED_BY(mutex_);  // see AcquireWork
  absl::Time started_at_ ABSL_GUARDED_BY(mutex_);            // the run, not this process
  absl::Time worker_seen_ ABSL_GUARDED_BY(mutex_);  // last moment with a worker, or no need
  absl::Time worker_missing_logged_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time full_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // the ledger's disk
  absl::Time progress_seen_ ABSL_GUARDED_BY(mutex_);  // last step, result or version
  absl::Time progress_missing_logged_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::string last_no_work_ ABSL_GUARDED_BY(mutex_);  // reason, for the warning
};

}  // namespace temper::orchestrator
