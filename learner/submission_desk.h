#pragma once

// Where submitted groups are examined, admitted and answered, one after the other.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/admission.h"
#include "learner/group_store.h"
#include "learner/learner_metrics.h"
#include "learner/orchestrator_link.h"
#include "services/base/bounded_queue.h"

namespace temper::learner {

struct SubmissionDeskOptions {
  AdmissionRules rules;
  uint64_t incarnation = 0;  // the learner's
  absl::Duration admit_timeout = absl::Seconds(5);
  // How often an admission without an answer is asked for again.
  absl::Duration settle_every = absl::Seconds(1);
};

// Called exactly once per submit, on the desk's thread, or on the caller's where the queue refuses.
using SubmitAnswer = std::function<void(const absl::StatusOr<v1::SubmitGroupReply>&)>;

// Thread-safe. One thread of its own examines in order of arrival: repeats get the answer they had;
// everything else is examined (learner/admission.h), the orchestrator is asked, and what it admits
// goes to the store before the worker hears of it. The queue holds kQueueGroups; beyond that a
// submit is answered Unavailable, and the worker tries again.
//
// An admission that the orchestrator did not answer may have happened there. Its group is kept, up
// to kQueueGroups of them, and asked about again, the same question, until there is an answer or
// the worker submits it once more: a group that was admitted is never lost, whoever sent it.
class SubmissionDesk final {
 public:
  static constexpr size_t kQueueGroups = 256;

  // Everything pointed to outlives the desk.
  SubmissionDesk(SubmissionDeskOptions options, GroupStore* store, OrchestratorLink* orchestrator,
                 LearnerMetrics* metrics);
  // As Close, and joins: waits for the admission in progress.
  ~SubmissionDesk();
  SubmissionDesk(const SubmissionDesk&) = delete;
  SubmissionDesk& operator=(const SubmissionDesk&) = delete;

  // Answers: FailedPrecondition before a timeline is open; Unavailable as above, or while the
  // orchestrator cannot be reached.
  void Submit(v1::SubmitGroupRequest submit, SubmitAnswer answer);

  // Takes no more submits; those that are queued are answered Unavailable.
  void Close();

 private:
  struct Queued {
    v1::SubmitGroupRequest submit;
    SubmitAnswer answer;
  };
  struct Unsettled {
    v1::SubmitGroupRequest submit;
    AdmissionDecision decision;
  };
  using AttemptKey = std::pair<uint64_t, uint32_t>;  // group_index, attempt

  void Run();
  void Handle(const Queued& queued);
  // Asks again about unsettled attempts, until one is not answered.
  void Settle();
  absl::StatusOr<v1::SubmitGroupReply> Consider(const v1::SubmitGroupRequest& submit);
  absl::StatusOr<v1::SubmitGroupReply> Admit(const v1::SubmitGroupRequest& submit,
                                             const AdmissionDecision& decision);

  const SubmissionDeskOptions options_;
  GroupStore* const store_;
  OrchestratorLink* const orchestrator_;
  LearnerMetrics* const metrics_;
  base::BoundedQueue<Queued> queue_{kQueueGroups};
  std::atomic<bool> closing_ = false;
  std::map<AttemptKey, Unsettled> unsettled_;  // the thread's own
  std::thread thread_;
};

}  // namespace temper::learner
