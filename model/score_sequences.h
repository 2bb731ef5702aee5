#pragma once

// Log-probs of given token sequences: what `temper logprobs` prints.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/parameters.h"
#include "numerics/noise_policy.h"

namespace temper::model {

// Error during scoring: the draws of an evaluation (policy made by numerics::EvaluationPolicy),
// keyed by (noise_seed, question = index of the sequence).
struct ScoreNoise {
  const numerics::NoisePolicy* policy = nullptr;  // null: none
  uint64_t noise_seed = 0;
};

// For every sequence one log-prob (natural, temperature 1) per token after the first: entry i is
// log p(ids[i + 1] | ids[0 .. i]).
// Errors: InvalidArgument for an empty sequence or an id out of range (names both).
absl::StatusOr<std::vector<std::vector<float>>> ScoreSequences(
    const Parameters& parameters, std::span<const std::vector<int32_t>> sequences, int threads,
    const ScoreNoise& noise = {});

}  // namespace temper::model
