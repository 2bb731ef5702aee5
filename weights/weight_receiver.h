#pragma once

// The worker's way to a complete version: tries, verifies, falls back.

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/clock.h"
#include "services/base/stop_token.h"
#include "temper/v1/weights.pb.h"
#include "weights/broadcaster.h"

namespace temper::weights {

struct ReceiverOptions {
  BroadcastMember* broadcast =
      nullptr;  // a collective, used for manifests of its epoch; may be null
  BroadcastMember* catch_up = nullptr;  // pulls what the collective did not bring; needed
  uint64_t comm_epoch = 0;              // of `broadcast`
  absl::Duration broadcast_timeout = absl::InfiniteDuration();  // of the collective's try
  bool* by_broadcast = nullptr;  // set to whether the collective brought the version; may be null
  int tries = 3;                 // of bytes that fail their hash, then DataLoss
  absl::Duration backoff = absl::Milliseconds(100);  // before trying an unreachable source again
  ManifestLimits limits;
  base::StopToken* stop = nullptr;  // raised: Cancelled at the next wait
  // Asked before an unreachable source is tried again: whether another version is wanted by now.
  // Without it a version whose learner is gone is tried until the deadline. May be empty.
  std::function<bool()> overtaken;
  base::Clock* clock = base::SystemClock();
};

// Brings the version of `manifest` whole or not at all. Tries the collective once if it carries
// this manifest, then pulls: again after Unavailable until `deadline`, again after DataLoss for the
// buckets that are missing.
// Returns: the verified version; DataLoss after options.tries tries whose bytes did not verify, or
// for a manifest that cannot be true; NotFound, Aborted as the source says, Aborted if overtaken
// (ask for the newest manifest); DeadlineExceeded; Cancelled after a stop.
absl::StatusOr<std::shared_ptr<const WeightVersion>> ReceiveVersion(const v1::Manifest& manifest,
                                                                    absl::Time deadline,
                                                                    const ReceiverOptions& options);

}  // namespace temper::weights
