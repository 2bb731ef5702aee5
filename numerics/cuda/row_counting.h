#pragma once

// Counts of what a kernel did to a tile of a row, equal to the CPU's to the last bit of their sums:
// squares are added in double in 16 lanes (element i in lane i mod 16, ascending) and the lanes by
// halves; the tile's sum is rounded to a fixed-point number, and those are added as integers, so
// the order of blocks does not matter.

#include "numerics/cuda/kernel_arguments.h"
#include "numerics/cuda/thread_block.h"

namespace temper::numerics::cuda {
namespace {

constexpr int kSumLanes = 16;

// In shared memory.
struct TileCounts {
  float error[kTileElements];  // x' - x; 0 where x' is not finite
  // x; 0 where x' is not finite. Half a row of banks apart: both are read at once.
  float value[kSumLanes + kTileElements];
  double lanes[2][kSumLanes];
  uint32_t changed;
  uint32_t non_finite;
};

// addend >= 0 in units of 2^-70 as ExactSum::Add rounds it; beyond 2^57 it saturates there.
TEMPER_HOST_DEVICE inline WideSum FixedPoint(double addend) {
  if (!(addend > 0.0)) return {};
  if (addend >= 0x1p57) return {.high = 1ull << 63};
  const auto high = static_cast<int64_t>(addend * 0x1p6);
  const double rest = addend - static_cast<double>(high) * 0x1p-6;  // exact
  const auto middle = static_cast<int64_t>(rest * 0x1p38);
  const double last = rest - static_cast<double>(middle) * 0x1p-38;  // exact
  const auto low = static_cast<unsigned long long>(static_cast<int64_t>(last * 0x1p70 + 0.5));
  const unsigned long long shifted = static_cast<unsigned long long>(middle) << 32;
  WideSum sum = {.low = shifted + low, .high = static_cast<unsigned long long>(high)};
  if (sum.low < shifted) ++sum.high;
  return sum;
}

// Carries are found by who caused them: an addition that wraps carries, and integer sums do not
// depend on the order, so the result is exact however blocks interleave.
TEMPER_HOST_DEVICE inline void AddTo(WideSum* total, const WideSum& part) {
  const unsigned long long low = AtomicAdd(&total->low, part.low);
  const unsigned long long carry = low + part.low < low ? 1 : 0;
  const unsigned long long addend = part.high + carry;  // at most 2^63 + 1
  const unsigned long long high = AtomicAdd(&total->high, addend);
  if (high + addend < high) AtomicAdd(&total->above, 1ull);
}

TEMPER_HOST_DEVICE inline void BeginCounting(TileCounts* tile) {
  ForEachThread([=](int thread) {
    if (thread == 0) tile->changed = tile->non_finite = 0;
  });
}

// Elements 4 * thread .. 4 * thread + count - 1 of the tile; in a step of all threads.
TEMPER_HOST_DEVICE inline void CountFour(TileCounts* tile, int thread, int count,
                                         const FourFloats& before, const FourFloats& after) {
  uint32_t changed = 0, non_finite = 0;
  for (int i = 0; i < count; ++i) {
    const float x = before.v[i], erred = after.v[i];
    const bool finite = kernels::Bits(kernels::Magnitude(erred)) < 0x7f800000u;
    changed += (erred < x) | (erred > x);
    non_finite += !finite;
    tile->error[kPerThread * thread + i] = finite ? kernels::Sub(erred, x) : 0.0f;
    tile->value[kSumLanes + kPerThread * thread + i] = finite ? x : 0.0f;
  }
  if (changed != 0) AtomicAdd(&tile->changed, changed);
  if (non_finite != 0) AtomicAdd(&tile->non_finite, non_finite);
}

// Adds the tile of `count` elements to the row's counts. first: it is the row's first tile.
TEMPER_HOST_DEVICE inline void EndCounting(TileCounts* tile, int count, bool first, int64_t cols,
                                           RowCounts* row) {
  ForEachThread([=](int thread) {
    if (thread >= 2 * kSumLanes) return;
    const int which = thread / kSumLanes, lane = thread % kSumLanes;
    const float* numbers = which == 0 ? tile->error : tile->value + kSumLanes;
    double sum = 0.0;
    for (int i = lane; i < count; i += kSumLanes) {
      const double number = numbers[i];
      sum += number * number;  // the square of a float is exact: contraction changes nothing
    }
    tile->lanes[which][lane] = sum;
  });
  ForEachThread([=](int thread) {
    if (thread == 2) {
      if (first) {
        AtomicAdd(&row->calls, 1ull);
        AtomicAdd(&row->elements, static_cast<unsigned long long>(cols));
      }
      AtomicAdd(&row->changed, static_cast<unsigned long long>(tile->changed));
      AtomicAdd(&row->non_finite, static_cast<unsigned long long>(tile->non_finite));
    }
    if (thread >= 2) return;
    double* lanes = tile->lanes[thread];
    for (int width = kSumLanes / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
    }
    AddTo(thread == 0 ? &row->sum_sq_error : &row->sum_sq_value, FixedPoint(lanes[0]));
  });
}

}  // namespace
}  // namespace temper::numerics::cuda
