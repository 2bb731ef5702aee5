#pragma once

// The checksum of a submitted group: the worker writes it, the learner compares it before it looks
// at anything else, so a group damaged on its way is refused and not trained.

#include <cstdint>

#include "temper/v1/learner.pb.h"

namespace temper::member {

// XXH3-64 over everything the request holds but `checksum` itself, so that a field added to the
// messages later is covered without being named here. Words are little-endian. A message is its
// fields in the order of their declaration; a field is its number, then how many values it has,
// then these: numbers as 64-bit words (floats as their bits), text as its length and bytes, a
// message as above. Counts stand before what they count, so no two groups read alike. Both ends
// compute it from their own schema: processes of different builds refuse each other's groups. Pure,
// thread-safe.
uint64_t SubmissionChecksum(const v1::SubmitGroupRequest& group);

}  // namespace temper::member
