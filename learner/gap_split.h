#pragma once

// The gap between sampler and learner, split into what makes it. A probe scores some groups of a
// step again, one cause after the other taken away; each term is the difference of two neighbours
// in this chain of log-probabilities, so that the signed terms add up to the whole:
//
//   recorded -> re-created -> without AQN -> current weights -> without error
//      precision        aqn           staleness           noise
//
// docs/dapo.md, "The gap, split", says what each is computed under. Plain numbers, no tensors; the
// passes are made by learner/gap_probe.h. Pure functions, thread-safe.

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "learner/rollout_group.h"

namespace temper::learner {

// The differences of one term over tokens, in nats.
struct GapTerm {
  double sum = 0.0;
  double abs_sum = 0.0;
  double abs_max = 0.0;

  // Adds to - from, token by token; spans of one size.
  void Add(std::span<const float> from, std::span<const float> to);
};

// The log-probabilities of the same tokens along the chain.
struct GapChain {
  std::span<const float> recorded;         // by the sampler
  std::span<const float> recreated;        // sampling version, the sampler's keys and its AQN
  std::span<const float> without_aqn;      // sampling version, same keys, the learner's norms
  std::span<const float> current_weights;  // the weights that are trained, same keys
  std::span<const float> without_error;    // those, without any error
};

// What the probes of one step found. Without tokens nothing was probed.
struct GapSplit {
  uint64_t groups = 0;
  uint64_t tokens = 0;  // unmasked completion tokens
  GapTerm precision;
  GapTerm aqn;
  GapTerm staleness;
  GapTerm noise;
  GapTerm whole;  // last of the chain minus recorded

  void Add(const GapChain& chain);
  // Every term with its name in metrics, in the order of the chain.
  std::array<std::pair<const char*, const GapTerm*>, 5> Terms() const;
  // sum / tokens; 0 without tokens.
  double MeanOver(double sum) const;
};

// Whether the step (from 1) is probed: every `every`-th; 0: none.
bool ProbeIsDue(uint64_t step, uint64_t every);

// Indices of the first `limit` groups, in their order, all of whose tokens one version sampled, one
// of `kept`: weights of another cannot be had any more.
std::vector<size_t> ChooseProbeGroups(std::span<const RolloutGroup> groups,
                                      const std::set<uint64_t>& kept, size_t limit);

}  // namespace temper::learner
