#pragma once

// An orchestrator that keeps the link's contract for one learner and remembers what it was told.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "learner/orchestrator_link.h"
#include "services/base/files.h"

namespace temper::testing {

// Thread-safe. Set the hooks before use; they run without a lock.
class FakeOrchestrator final : public learner::OrchestratorLink {
 public:
  // Called when a version is out, on the caller's thread.
  std::function<void(const v1::Manifest&)> on_publish;
  // What PublishManifest answers unless OK.
  std::function<absl::Status(const v1::Manifest&)> hold_publishing;
  // The version whose publishing raises a stop and is cancelled by it, if any.
  std::optional<uint64_t> cancel_publish_of;
  std::function<void()> on_cancelled_publish;
  // Called at the begin of every AdmitGroup.
  std::function<void()> on_admit;
  // Close the open step once so many groups were examined in it; 0: never.
  uint32_t close_after_examined = 0;
  // Answers of AdmitGroup that fail with Unavailable before one succeeds.
  int admit_failures = 0;
  // Admissions that are carried out and answered Unavailable.
  int admit_answers_lost = 0;
  // Called at the begin of every SnapshotLedger; what it answers unless OK.
  std::function<void()> on_snapshot;
  absl::Status snapshot_status;

  absl::StatusOr<v1::BeginTimelineReply> BeginTimeline(const v1::BeginTimelineRequest&,
                                                       absl::Time) override {
    v1::BeginTimelineReply reply;
    reply.set_timeline(1);
    return reply;
  }

  absl::StatusOr<v1::AdmitGroupReply> AdmitGroup(const v1::AdmitGroupRequest& request,
                                                 absl::Time) override {
    if (on_admit) on_admit();
    absl::MutexLock lock(&mutex_);
    if (admit_failures > 0) {
      --admit_failures;
      return absl::UnavailableError("restarting");
    }
    admissions_.push_back(request);
    v1::AdmitGroupReply reply;
    const bool holds = request.examination() == v1::EXAMINATION_KEPT ||
                       request.examination() == v1::EXAMINATION_ZERO_VARIANCE;
    const auto [entry, first] =
        holds ? admitted_.emplace(request.ref().group_index(), request.ref().attempt())
              : std::pair(admitted_.end(), false);
    const bool admitted = holds && entry->second == request.ref().attempt();
    reply.set_admitted(admitted);
    if (holds && !admitted) reply.set_reason("another attempt was admitted first");
    if (first) ++examined_;
    if (admit_answers_lost > 0) {
      --admit_answers_lost;
      return absl::UnavailableError("killed before it answered");
    }
    reply.mutable_progress()->set_step(commits_.size() + 1);
    reply.mutable_progress()->set_examined(examined_);
    reply.mutable_progress()->set_close_step(close_after_examined > 0 &&
                                             examined_ >= close_after_examined);
    reply.mutable_progress()->set_reason("the filter's bound");
    return reply;
  }

  absl::StatusOr<v1::CommitStepReply> CommitStep(const v1::CommitStepRequest& request,
                                                 absl::Time) override {
    absl::MutexLock lock(&mutex_);
    commits_.push_back(request);
    examined_ = 0;
    return v1::CommitStepReply();
  }

  absl::StatusOr<v1::PublishManifestReply> PublishManifest(
      const v1::PublishManifestRequest& request, absl::Time) override {
    {
      absl::MutexLock lock(&mutex_);
      manifests_.push_back(request.manifest());
    }
    if (hold_publishing) {
      if (absl::Status held = hold_publishing(request.manifest()); !held.ok()) return held;
    }
    if (request.manifest().version() == cancel_publish_of) {
      on_cancelled_publish();
      return absl::CancelledError("stopped while an evaluation holds it back");
    }
    if (on_publish) on_publish(request.manifest());
    v1::PublishManifestReply reply;
    reply.set_state(v1::RUN_STATE_TRAINING);
    return reply;
  }

  absl::Status FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                  absl::Time) override {
    absl::MutexLock lock(&mutex_);
    groups_.push_back(request);
    return absl::OkStatus();
  }

  absl::Status EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request, absl::Time) override {
    absl::MutexLock lock(&mutex_);
    ended_groups_.push_back(request);
    return absl::OkStatus();
  }

  absl::Status SnapshotLedger(const v1::SnapshotLedgerRequest& request, const std::string& path,
                              absl::Time) override {
    if (on_snapshot) on_snapshot();
    absl::MutexLock lock(&mutex_);
    snapshots_.push_back(request);
    return snapshot_status.ok() ? base::WriteFileAtomically(path, "the ledger") : snapshot_status;
  }

  absl::Status StopRun(const v1::StopRunRequest& request, absl::Time) override {
    absl::MutexLock lock(&mutex_);
    stops_.push_back(request);
    return absl::OkStatus();
  }

  std::vector<v1::AdmitGroupRequest> admissions() const { return Copy(admissions_); }
  std::vector<v1::CommitStepRequest> commits() const { return Copy(commits_); }
  std::vector<v1::Manifest> manifests() const { return Copy(manifests_); }
  std::vector<v1::SnapshotLedgerRequest> snapshots() const { return Copy(snapshots_); }
  std::vector<v1::StopRunRequest> stops() const { return Copy(stops_); }
  std::vector<v1::FormBroadcastGroupRequest> groups() const { return Copy(groups_); }
  std::vector<v1::EndBroadcastGroupRequest> ended_groups() const { return Copy(ended_groups_); }

 private:
  template <typename T>
  T Copy(const T& value) const {
    absl::MutexLock lock(&mutex_);
    return value;
  }

  mutable absl::Mutex mutex_;
  std::map<uint64_t, uint32_t> admitted_ ABSL_GUARDED_BY(mutex_);
  uint32_t examined_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<v1::AdmitGroupRequest> admissions_;
  std::vector<v1::CommitStepRequest> commits_;
  std::vector<v1::Manifest> manifests_;
  std::vector<v1::SnapshotLedgerRequest> snapshots_;
  std::vector<v1::StopRunRequest> stops_;
  std::vector<v1::FormBroadcastGroupRequest> groups_;
  std::vector<v1::EndBroadcastGroupRequest> ended_groups_;
};

}  // namespace temper::testing
