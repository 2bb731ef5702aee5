#pragma once

// The largest magnitude of a row, found by one thread block.

#include "numerics/cuda/thread_block.h"

namespace temper::numerics::cuda {
namespace {

// Partial maxima of the threads, in shared memory.
struct RowMaximum {
  uint32_t finite_bits[kThreads];
  uint32_t non_finite[kThreads];
};

// Largest finite |x| of the row in maximum->finite_bits[0], as bits, and in non_finite[0] whether
// there are other values. Magnitudes are ordered as their bits are, so any order of threads serves.
TEMPER_HOST_DEVICE inline void FindRowMaximum(const float* x, int64_t count, RowMaximum* maximum) {
  ForEachThread([=](int thread) {
    uint32_t finite = 0, non_finite = 0;
    for (int64_t i = thread; i < count; i += kThreads) {
      const uint32_t bits = kernels::Bits(x[i]) & 0x7fffffffu;
      if (bits >= 0x7f800000u) {
        non_finite = 1;
      } else if (bits > finite) {
        finite = bits;
      }
    }
    maximum->finite_bits[thread] = finite;
    maximum->non_finite[thread] = non_finite;
  });
  for (int width = kThreads / 2; width > 0; width /= 2) {
    ForEachThread([=](int thread) {
      if (thread >= width) return;
      const uint32_t other = maximum->finite_bits[thread + width];
      if (other > maximum->finite_bits[thread]) maximum->finite_bits[thread] = other;
      maximum->non_finite[thread] |= maximum->non_finite[thread + width];
    });
  }
}

}  // namespace
}  // namespace temper::numerics::cuda
