#include "weights/weight_receiver.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::weights {
namespace {

// Waits for the back-off or the stop; false after a stop.
bool BackOff(const ReceiverOptions& options, absl::Time deadline) {
  const absl::Time until = std::min(options.clock->Now() + options.backoff, deadline);
  if (options.stop != nullptr) return !options.stop->WaitUntil(until, options.clock);
  base::StopToken never;
  never.WaitUntil(until, options.clock);
  return true;
}

// Pulls until nothing is missing, the hash failed too often, or time is up.
absl::Status CatchUp(VersionAssembler* assembler, absl::Time deadline,
                     const ReceiverOptions& options) {
  const uint64_t version = assembler->manifest().version();
  int bad_tries = 0;
  while (true) {
    const absl::Status status = options.catch_up->Receive(assembler, deadline);
    if (status.ok()) return status;
    if (absl::IsDataLoss(status)) {
      ++bad_tries;
      base::LogWarning("weights_hash_failed",
                       {{"version", version}, {"try", bad_tries}, {"error", status.ToString()}});
      if (bad_tries >= options.tries) {
        return absl::DataLossError(absl::StrCat("version ", version, " failed its hash check ",
                                                bad_tries, " times; last: ", status.message()));
      }
      continue;
    }
    if (!absl::IsUnavailable(status)) return status;
    if (options.clock->Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("version ", version, " could not be pulled: ", status.message()));
    }
    if (!BackOff(options, deadline)) return absl::CancelledError("stopped while pulling weights");
    if (options.overtaken && options.overtaken()) {
      return absl::AbortedError(
          absl::StrCat("version ", version, " is not wanted any more; last: ", status.message()));
    }
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const WeightVersion>> ReceiveVersion(
    const v1::Manifest& manifest, absl::Time deadline, const ReceiverOptions& options) {
  auto assembler = VersionAssembler::Create(manifest, options.limits);
  if (!assembler.ok()) {
    return absl::DataLossError(absl::StrCat("the manifest of version ", manifest.version(),
                                            " cannot be true: ", assembler.status().message()));
  }
  if (options.broadcast != nullptr && manifest.comm_epoch() != 0 &&
      manifest.comm_epoch() == options.comm_epoch) {
    const absl::Status status = options.broadcast->Receive(
        assembler->get(), std::min(deadline, options.clock->Now() + options.broadcast_timeout));
    if (!status.ok()) {
      // Not to be a member, or to be past a version, is ordinary.
      base::Log(absl::IsNotFound(status) ? base::LogLevel::kInfo : base::LogLevel::kWarning,
                "broadcast_missed",
                {{"version", manifest.version()},
                 {"comm_epoch", manifest.comm_epoch()},
                 {"error", status.ToString()}});
    }
  }
  const bool whole = (*assembler)->Missing().empty();
  if (options.by_broadcast != nullptr) *options.by_broadcast = whole;
  if (!whole) {
    TEMPER_RETURN_IF_ERROR(CatchUp(assembler->get(), deadline, options));
  }
  return (*assembler)->Finish();
}

}  // namespace temper::weights
