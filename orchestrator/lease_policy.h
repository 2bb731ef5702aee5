#pragma once

// What a rollout worker that asks for work gets, or why nothing. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "orchestrator/step_policy.h"

namespace temper::orchestrator {

// The run as lease decisions see it.
struct WorkSnapshot {
  std::string ended;       // "finished", "stopped", "failed"; empty: goes on
  uint64_t timeline = 0;   // 0: no learner has begun one
  int reward_servers = 0;  // alive
  StepSnapshot step;
  std::vector<uint64_t> ready_groups;  // pending, back-off over; ascending
  uint32_t backing_off_groups = 0;     // pending, back-off not over
  bool evaluating = false;             // evaluation items are open
  std::optional<uint64_t> ready_item;  // lowest evaluation item that can be leased
  uint32_t backing_off_items = 0;
};

// What the worker has verified and installed.
struct WorkerVersion {
  bool has_version = false;
  uint64_t timeline = 0;
  uint64_t version = 0;
};

struct LeaseDecision {
  enum class Kind { kNone, kTrain, kEval };
  Kind kind = Kind::kNone;
  // kNone: finished, stopped, failed, no_timeline, no_version, no_reward_server, stale_weights,
  // evaluating, awaiting_version, round_in_progress, batch_full, filter_bound, at_capacity,
  // backing_off, all_steps_closed. Else what the groups are: retry, first_round, deficit, capacity.
  std::string reason;
  std::vector<uint64_t> groups;  // kTrain: pending groups to lease, ascending
  OpenDecision open;             // kTrain: groups to open first; the lowest of them fill the lease
  uint32_t lease_opened = 0;     // how many of the opened ones go into this lease
  uint64_t item = 0;             // kEval
  uint64_t version = 0;          // to sample with
};

// Oldest group_index first; at most groups_per_lease groups, fewer where fewer are there. A
// synchronous or evaluation lease needs exactly the newest version; an asynchronous one may be
// max_staleness - 1 versions behind, and samples with what the worker has.
LeaseDecision DecideLease(const StepOptions& options, uint32_t groups_per_lease,
                          const WorkSnapshot& snapshot, const WorkerVersion& worker);

}  // namespace temper::orchestrator
