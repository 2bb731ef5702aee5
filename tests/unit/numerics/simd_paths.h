#pragma once

// What tests need that hold every instruction set to the same bits.

#include <bit>
#include <cstdint>
#include <vector>

#include "numerics/simd_path.h"

namespace temper::numerics {

// Those that this machine can run; the scalar one first.
inline std::vector<SimdPath> Paths() {
  std::vector<SimdPath> paths;
  for (SimdPath path : {SimdPath::kScalar, SimdPath::kAvx2, SimdPath::kAvx512}) {
    if (SimdPathSupported(path)) paths.push_back(path);
  }
  return paths;
}

inline std::vector<uint32_t> BitsOf(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

}  // namespace temper::numerics
