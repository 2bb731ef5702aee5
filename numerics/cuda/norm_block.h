#pragma once

// Body of the kernel of RMSNorm with AQN inside it: numerics/aqn.h, ApplyAqn, and the order of the
// CPU's norm (16 lanes of fused multiply-adds, then a tree), so that both give the same bits.

#include "numerics/cuda/kernel_arguments.h"
#include "numerics/cuda/keyed_normals.h"
#include "numerics/cuda/thread_block.h"

namespace temper::numerics::cuda {
namespace {

constexpr int kNormLanes = 16;

// In shared memory.
struct NormShared {
  float tile[4 * kTileElements];
  float lanes[kNormLanes];
  float inv_rms;
};

// Weights channel .. channel + 3 of the norm under one draw; `count` of them exist.
TEMPER_HOST_DEVICE inline FourFloats PerturbedGamma(const float* gamma, int64_t channel, int count,
                                                    const NormDraw* draw, uint32_t site) {
  FourFloats four = LoadFour(gamma + channel, count);
  if (draw == nullptr || draw->scale == 0.0f) return four;
  const RowKey key = {.key = draw->key};
  const FourNormals n = KeyedNormals(key, site, channel);
  for (int i = 0; i < 4; ++i) four.v[i] = kernels::Fma(draw->scale, n.n[i], four.v[i]);
  return four;
}

// Block `block` of the kernel: that row.
TEMPER_HOST_DEVICE inline void NormBlock(const NormArguments& a, uint32_t block,
                                         NormShared* shared) {
  const int64_t row = block;
  constexpr int kTile = 4 * kTileElements;
  const float* x = a.x + row * a.x_stride;
  ForEachThread([=](int thread) {
    if (thread < kNormLanes) shared->lanes[thread] = 0.0f;
  });
  for (int64_t first = 0; first < a.cols; first += kTile) {
    const auto count = static_cast<int>(Smaller(kTile, a.cols - first));
    ForEachThread([=](int thread) {
      for (int i = thread; i < count; i += kThreads) shared->tile[i] = x[first + i];
    });
    ForEachThread([=](int thread) {
      if (thread >= kNormLanes) return;
      float sum = shared->lanes[thread];
      for (int i = thread; i < count; i += kNormLanes) {
        sum = kernels::Fma(shared->tile[i], shared->tile[i], sum);
      }
      shared->lanes[thread] = sum;
    });
  }
  ForEachThread([&](int thread) {
    if (thread != 0) return;
    float* lanes = shared->lanes;
    for (int width = kNormLanes / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lanes[l] = kernels::Add(lanes[l], lanes[l + width]);
    }
    const float mean = kernels::Div(lanes[0], static_cast<float>(a.cols));
    shared->inv_rms = kernels::Div(1.0f, kernels::Sqrt(kernels::Add(mean, a.eps)));
    if (a.inv_rms != nullptr) a.inv_rms[row] = shared->inv_rms;
  });
  const NormDraw* draw = a.draws == nullptr ? nullptr : a.draws + row * a.draw_stride;
  ForEachThread([&](int thread) {
    const float factor = shared->inv_rms;
    for (int64_t c = kPerThread * thread; c < a.cols; c += kTileElements) {
      const auto here = static_cast<int>(Smaller(kPerThread, a.cols - c));
      const FourFloats gamma = PerturbedGamma(a.gamma, c, here, draw, a.site);
      FourFloats y = LoadFour(x + c, here);
      for (int i = 0; i < 4; ++i) {
        y.v[i] = kernels::Mul(kernels::Mul(y.v[i], factor), gamma.v[i]);
      }
      StoreFour(y, a.y + row * a.y_stride + c, here);
    }
  });
}

}  // namespace
}  // namespace temper::numerics::cuda
