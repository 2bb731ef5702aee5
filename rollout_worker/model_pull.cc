#include "rollout_worker/model_pull.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"
#include "weights/base_client.h"
#include "weights/model_file_client.h"

namespace temper::rollout_worker {
namespace {

constexpr int kMaxDamaged = 3;
constexpr absl::Duration kRetry = absl::Milliseconds(200);
constexpr absl::Duration kLeaveTimeout = absl::Seconds(2);
constexpr absl::Duration kLongestStream = absl::Minutes(2);

// Tries pull(address, time left) at whatever learner the membership names, until something comes.
template <typename Pulled, typename Pull>
absl::StatusOr<Pulled> Await(const ModelPullOptions& options, const Pull& pull) {
  const absl::Time deadline = absl::Now() + options.patience;
  int damaged = 0;
  std::string last_reason;
  while (true) {
    const std::vector<std::string> learner =
        member::PeerAddresses(options.membership->view(), v1::ROLE_LEARNER);
    absl::StatusOr<Pulled> pulled = absl::UnavailableError("no learner has joined the run yet");
    if (!learner.empty()) pulled = pull(learner.front(), deadline - absl::Now());
    if (pulled.ok()) return pulled;
    if (absl::IsDataLoss(pulled.status())) ++damaged;
    if (!PullModelAgain(pulled.status(), damaged)) return pulled;
    // A try that our own deadline cut short says less than the one before it.
    const bool cut_short = absl::IsDeadlineExceeded(pulled.status()) && !last_reason.empty();
    const std::string reason = cut_short ? last_reason : pulled.status().ToString();
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("the model did not come from the learner within ",
                       absl::FormatDuration(options.patience), "; last: ", reason));
    }
    if (reason != last_reason) {
      last_reason = reason;
      base::LogInfo("waiting_for_the_model", {{"from", "the learner"}, {"reason", last_reason}});
    }
    if (options.stop->WaitUntil(std::min(deadline, absl::Now() + kRetry))) {
      return absl::CancelledError("stopped while waiting for the model");
    }
  }
}

}  // namespace

bool PullModelAgain(const absl::Status& status, int damaged) {
  if (absl::IsDataLoss(status)) return damaged < kMaxDamaged;
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsNotFound(status);
}

absl::StatusOr<weights::ModelFiles> AwaitModelFiles(const ModelPullOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(
      const weights::ModelFiles files,
      Await<weights::ModelFiles>(options, [&](const std::string& address, absl::Duration left) {
        return weights::PullModelFiles({.address = address,
                                        .run_id = options.membership->run_id(),
                                        .tls = options.tls,
                                        .timeout = std::min(kLongestStream, left),
                                        .stop = options.stop,
                                        .metrics = options.metrics});
      }));
  base::LogInfo("model_files_pulled",
                {{"files", files.size()}, {"hash", weights::ModelFilesHash(files)}});
  return files;
}

absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> AwaitBase(
    const ModelPullOptions& options) {
  using Base = std::shared_ptr<const weights::WeightVersion>;
  TEMPER_ASSIGN_OR_RETURN(
      const Base base, Await<Base>(options, [&](const std::string& address, absl::Duration left) {
        return weights::PullBase({.address = address,
                                  .run_id = options.membership->run_id(),
                                  .tls = options.tls,
                                  .timeout = left,
                                  .stop = options.stop,
                                  .metrics = options.metrics});
      }));
  base::LogInfo("base_pulled", {{"tensors", base->manifest().tensors_size()},
                                {"hash", base->manifest().base_weights_hash()}});
  return base;
}

absl::StatusOr<std::unique_ptr<RunSetup>> AwaitRunSetup(const ModelPullOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(const weights::ModelFiles files, AwaitModelFiles(options));
  return MakeRunSetup(options.membership->run_id(), options.membership->join_reply().config(),
                      files);
}

absl::Status LeaveBeforeWork(member::MembershipClient* membership) {
  const absl::Status left = membership->Leave(kLeaveTimeout);
  if (!left.ok()) base::LogWarning("leave_failed", {{"error", left.ToString()}});
  return membership->view().end;
}

}  // namespace temper::rollout_worker
