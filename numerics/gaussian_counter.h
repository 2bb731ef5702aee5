#pragma once

// How normals and their Philox counters are numbered by each kind of draw. Internal to numerics.

#include <cstdint>

#include "numerics/error_type.h"
#include "numerics/kernels/gaussian_kernels.h"

namespace temper::numerics {

inline kernels::Numbers NumbersOf(GaussianDraw draw) {
  return draw == GaussianDraw::kFast ? kernels::Numbers::kFast : kernels::Numbers::kExact;
}

// The counter's first word at an element, a multiple of 8.
inline uint32_t CounterOf(int64_t element, GaussianDraw draw) {
  return static_cast<uint32_t>(element / (draw == GaussianDraw::kFast ? 8 : 4));
}

}  // namespace temper::numerics
