#pragma once

// One thread block of a kernel, written once for device and host. The body of a kernel is a
// function of (arguments, number of the block, shared memory) that consists of calls of
// ForEachThread. On the device each call is one step of all threads and a barrier; on the host it
// is a loop over the threads. A body that is right in any order of the threads within a step gives
// the same bits on both, so tests without a device run whole kernels: indices, tails, reductions
// and counters.

#include <cstdint>

#include "numerics/kernels/host_device.h"

namespace temper::numerics::cuda {
namespace {

constexpr int kThreads = 256;
// Elements of a row that a block takes at a time, four to a thread (one Philox counter). The
// counters' sums are rounded once per as many elements, so the number is that of
// numerics/gaussian.cc.
constexpr int kTileElements = 1024;
constexpr int kPerThread = kTileElements / kThreads;
static_assert(kPerThread == 4);

// f(thread) for all threads of the block, then a barrier. Nothing of a thread outlives a step but
// what it wrote to memory.
template <typename F>
TEMPER_HOST_DEVICE inline void ForEachThread(F f) {
#ifdef __CUDA_ARCH__
  f(static_cast<int>(threadIdx.x));
  __syncthreads();
#else
  // Out of order, so that a body which relies on it fails.
  for (int i = 0; i < kThreads; ++i) f((i * 167 + 89) % kThreads);
#endif
}

// *at += value, whoever else adds meanwhile; returns what was there.
template <typename T>
TEMPER_HOST_DEVICE inline T AtomicAdd(T* at, T value) {
#ifdef __CUDA_ARCH__
  return atomicAdd(at, value);
#else
  const T before = *at;
  *at += value;
  return before;
#endif
}

TEMPER_HOST_DEVICE inline void AtomicMax(uint32_t* at, uint32_t value) {
#ifdef __CUDA_ARCH__
  atomicMax(at, value);
#else
  if (*at < value) *at = value;
#endif
}

TEMPER_HOST_DEVICE inline int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }

TEMPER_HOST_DEVICE constexpr int64_t TilesOf(int64_t cols) {
  return (cols - 1) / kTileElements + 1;  // cols > 0
}

// The tile that a block of rows * TilesOf(cols) works on. There are fewer than 2^31 of them, and
// devices divide 32 bits faster.
struct TilePlace {
  int64_t row;
  int64_t first;  // column
};
TEMPER_HOST_DEVICE inline TilePlace PlaceOf(uint32_t block, int64_t cols) {
  const auto tiles = static_cast<uint32_t>(TilesOf(cols));
  return {block / tiles, int64_t{block % tiles} * kTileElements};
}

// Up to four neighbours of a row; at once where there are four and their address allows it.
struct FourFloats {
  float v[4];
};

TEMPER_HOST_DEVICE inline bool Aligned16(const void* at) {
  return (reinterpret_cast<uintptr_t>(at) & 15u) == 0;
}

TEMPER_HOST_DEVICE inline FourFloats LoadFour(const float* at, int count) {
#ifdef __CUDA_ARCH__
  if (count == 4 && Aligned16(at)) {
    const float4 v = *reinterpret_cast<const float4*>(at);
    return {{v.x, v.y, v.z, v.w}};
  }
#endif
  FourFloats four = {};
  for (int i = 0; i < 4; ++i) {
    if (i < count) four.v[i] = at[i];
  }
  return four;
}

TEMPER_HOST_DEVICE inline void StoreFour(const FourFloats& four, float* at, int count) {
#ifdef __CUDA_ARCH__
  if (count == 4 && Aligned16(at)) {
    *reinterpret_cast<float4*>(at) = make_float4(four.v[0], four.v[1], four.v[2], four.v[3]);
    return;
  }
#endif
  for (int i = 0; i < 4; ++i) {
    if (i < count) at[i] = four.v[i];
  }
}

}  // namespace
}  // namespace temper::numerics::cuda
