#pragma once

// Splits the gap between sampler and learner on a few groups of a step (learner/gap_split.h), by
// forward passes that nothing else can tell from not having been made: they keep no graph, count
// nothing and write no weight, and random numbers are functions, so that a run with probes equals
// one without to the bit.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "learner/dapo_objective.h"
#include "learner/gap_split.h"
#include "learner/policy_trainer.h"
#include "learner/rollout_group.h"
#include "weights/weight_version.h"

namespace temper::learner {

struct GapProbeOptions {
  uint64_t every = 0;   // steps; 0: never
  uint32_t groups = 0;  // of one probe, at most
  uint64_t max_staleness = 0;
  int64_t micro_batch_tokens = 0;  // rows of one pass; 0: no bound
  DapoRules rules;                 // says which tokens are masked
};

// Thread-compatible. The trainer outlives it. With `every` above 0 it keeps the newest
// max_staleness + 1 versions, of which the shelf that workers pull from shares two; a probe of
// another version than the current one has, while it lasts, three more copies of its weights.
class GapProbe final {
 public:
  GapProbe(GapProbeOptions options, PolicyTrainer* trainer)
      : options_(std::move(options)), trainer_(trainer) {}

  // A version that is about to be out. Call it with each, in order.
  void Keep(std::shared_ptr<const weights::WeightVersion> version);

  // Probes the batch of `step` if that is due and the batch has a group; before its update.
  // groups: in ascending group_index. nullopt: nothing was due. A split without tokens: no group
  // was of one kept version. Errors: the model's.
  absl::StatusOr<std::optional<GapSplit>> Run(uint64_t step, std::span<const RolloutGroup> groups);

 private:
  absl::Status ProbeVersion(uint64_t version, std::span<const TrainSequence> sequences,
                            GapSplit* split);
  // The model of a version; null for the current one, whose weights the trainer holds.
  absl::StatusOr<std::unique_ptr<model::TrainModel>> ModelOf(uint64_t version) const;

  const GapProbeOptions options_;
  PolicyTrainer* const trainer_;
  std::deque<std::shared_ptr<const weights::WeightVersion>> kept_;  // ascending version
};

}  // namespace temper::learner
