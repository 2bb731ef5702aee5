#pragma once

// The checksum of a submitted group: the worker writes it, the learner compares it before it looks
// at anything else, so a group damaged on its way is refused and not trained.

#include <cstdint>

#include "temper/v1/learner.pb.h"

namespace temper::member {

// XXH3-64 over little-endian words, in this order: timeline, group_index, attempt, problem_id,
// seed, noise_id, number of prompt tokens and these, number of completions, and for each of them
// number of tokens, tokens, number of log-probs and their float bits, number of version runs and
// (version, tokens) of each, truncated, and the bits of reward and accuracy as doubles.
// Counts stand before what they count, so no two groups read alike. run_id, texts and seconds are
// not in it. Pure, thread-safe; the field `checksum` itself is not read.
uint64_t SubmissionChecksum(const v1::SubmitGroupRequest& group);

}  // namespace temper::member
