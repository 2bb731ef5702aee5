#pragma once

// What the worker's weights thread does next. Pure.

#include <cstdint>
#include <optional>
#include <string>

namespace temper::rollout_worker {

// A version in its timeline; numbers of different timelines do not compare.
struct VersionKey {
  uint64_t timeline = 0;
  uint64_t version = 0;
  friend bool operator==(const VersionKey&, const VersionKey&) = default;
};

struct FetchDecision {
  std::optional<VersionKey> fetch;  // absent: nothing to do
  std::string reason;               // no_timeline, no_version_out, up_to_date, newer_version, ...
};

// held: installed and acknowledged. Versions only move forward inside a timeline; another timeline
// is always fetched from, whatever its number.
FetchDecision NextFetch(uint64_t timeline, std::optional<uint64_t> latest_version,
                        const std::optional<VersionKey>& held);

}  // namespace temper::rollout_worker
