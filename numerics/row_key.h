#pragma once

#include <cstdint>

namespace temper::numerics {

// Names the draws of one row (one token). key: base::ForwardErrorKey and its siblings; position:
// index of the token in its sequence; lane: base::TokenLane. `frozen` error: position = lane = 0.
struct RowKey {
  uint64_t key = 0;
  uint32_t position = 0;
  uint32_t lane = 0;
};

}  // namespace temper::numerics
