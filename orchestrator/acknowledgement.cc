#include "orchestrator/acknowledgement.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace temper::orchestrator {

AcknowledgementDecision DecideAcknowledgement(const VersionFacts& facts,
                                              const std::optional<Acknowledgement>& first,
                                              const Acknowledgement& now) {
  if (now.base_weights_hash != facts.base_weights_hash) {
    return {false, absl::StrFormat("weights hash %016x, manifest has %016x", now.base_weights_hash,
                                   facts.base_weights_hash)};
  }
  if (now.aqn_sigma != facts.aqn_sigma) {
    return {false, absl::StrCat("AQN sigma ", now.aqn_sigma, ", manifest has ", facts.aqn_sigma)};
  }
  if (now.aqn_sigma > 0 && now.aqn_norms == 0) {
    return {false, absl::StrCat("AQN sigma ", now.aqn_sigma, " touched 0 norms")};
  }
  if (first && facts.same_draw_everywhere) {
    if (now.aqn_norms != first->aqn_norms) {
      return {false, absl::StrCat("AQN touched ", now.aqn_norms, " norms, ", first->aqn_norms,
                                  " elsewhere")};
    }
    if (now.aqn_checksum != first->aqn_checksum) {
      return {false, absl::StrFormat("AQN checksum %016x, %016x elsewhere", now.aqn_checksum,
                                     first->aqn_checksum)};
    }
  }
  const bool own_draws = !facts.same_draw_everywhere && facts.aqn_sigma > 0;
  if (first && own_draws && now.member != first->member &&
      now.aqn_checksum == first->aqn_checksum) {
    return {false, absl::StrFormat("AQN checksum %016x is that of %s, whose draw is its own",
                                   now.aqn_checksum, first->member)};
  }
  return {true, "accepted"};
}

}  // namespace temper::orchestrator
