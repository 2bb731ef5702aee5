#pragma once

// What becomes of an answer on a group's way out. Pure decisions with their reasons.

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "rollout_worker/lease_table.h"
#include "temper/v1/common.pb.h"
#include "temper/v1/learner.pb.h"
#include "temper/v1/reward.pb.h"

namespace temper::rollout_worker {

enum class NextMove {
  kDone,   // the call's answer stands
  kRetry,  // wait and try again, at another server where there is one
  kFail,   // no further try has a point: the attempt failed with `ending`
  kDrop,   // the lease is gone: nobody waits for an answer
};

struct DeliveryDecision {
  NextMove move = NextMove::kDone;
  v1::Ending ending = v1::ENDING_UNSPECIFIED;  // with kFail
  std::string reason;
};

// After one try to score. `failed_samples` of an answered call had no score in their own deadline;
// `scorings` counts answered calls: such samples are tried kMaxScorings times.
//   the lease is not held                      -> drop
//   a bad request (InvalidArgument, ...)       -> fail, reward_failed
//   any other error                            -> retry until the lease ends
//   samples without a score, few scorings      -> retry; then done (their groups fail)
inline constexpr int kMaxScorings = 3;
DeliveryDecision AfterScoring(LeaseStanding standing, const absl::Status& status,
                              int failed_samples, int scorings);

// After one try to submit.
//   an answer                                  -> done
//   the lease is not held                      -> drop
//   a request the learner cannot take          -> fail, generation_failed
//   any other error                            -> retry (the same submit gives the same answer)
DeliveryDecision AfterSubmit(LeaseStanding standing, const absl::Status& status);

// The wait before try number `tries` + 1 (tries >= 1): 100 ms doubling to 2 s.
absl::Duration DeliveryBackoff(int tries);

}  // namespace temper::rollout_worker
