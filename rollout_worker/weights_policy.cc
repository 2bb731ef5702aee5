#include "rollout_worker/weights_policy.h"

namespace temper::rollout_worker {

FetchDecision NextFetch(uint64_t timeline, std::optional<uint64_t> latest_version,
                        const std::optional<VersionKey>& held) {
  if (timeline == 0) return {.reason = "no_timeline"};
  if (!latest_version.has_value()) return {.reason = "no_version_out"};
  const VersionKey latest{.timeline = timeline, .version = *latest_version};
  if (!held.has_value()) return {.fetch = latest, .reason = "first_version"};
  if (held->timeline != timeline) return {.fetch = latest, .reason = "other_timeline"};
  if (held->version >= latest.version) return {.reason = "up_to_date"};
  return {.fetch = latest, .reason = "newer_version"};
}

}  // namespace temper::rollout_worker
