#pragma once

// Softmax over the vocabulary and the weight gradient, in Lanes; included by one .cc file per
// instruction set, after norm_body.h.

#include <cstdint>

#include "model/kernels/row_kernels.h"

namespace temper::model::kernels {
namespace {

// Vocabulary entries that are summed in float before the sum goes on in double.
constexpr int64_t kSumBlock = 64;

double SoftmaxWeights(const float* logits, int64_t count, float inv_temperature, float* weights,
                      float* max) {
  const Lanes factor = Lanes::Broadcast(inv_temperature);
  Lanes largest = Lanes::Broadcast(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) largest = Lanes::Max(largest, Lanes::Load(logits + i) * factor);
  float top = largest.Largest();
  for (; i < count; ++i) {
    const float scaled = logits[i] * inv_temperature;
    top = scaled > top ? scaled : top;
  }
  *max = top;
  const Lanes shift = Lanes::Broadcast(top);
  double total = 0.0;
  for (int64_t block = 0; block < count; block += kSumBlock) {
    const int64_t end = block + kSumBlock < count ? block + kSumBlock : count;
    Lanes sum = Lanes::Zero();
    for (i = block; i < end; i += 16) {
      if (end - i >= 16) {
        const Lanes e = Exp(Lanes::Load(logits + i) * factor - shift);
        e.Store(weights + i);
        sum = sum + e;
      } else {
        const Lanes e = Exp(Lanes::LoadPart(logits + i, end - i) * factor - shift);
        e.StorePart(weights + i, end - i);
        sum = sum + Lanes::LoadPart(weights + i, end - i);
      }
    }
    total += static_cast<double>(sum.Sum());
  }
  return total;
}

double WeightedLogSum(const float* logits, const float* weights, int64_t count,
                      float inv_temperature, float max) {
  const Lanes factor = Lanes::Broadcast(inv_temperature);
  const Lanes shift = Lanes::Broadcast(max);
  double total = 0.0;
  for (int64_t block = 0; block < count; block += kSumBlock) {
    const int64_t end = block + kSumBlock < count ? block + kSumBlock : count;
    Lanes sum = Lanes::Zero();
    for (int64_t i = block; i < end; i += 16) {
      const Lanes z = LoadUpTo(logits + i, end - i) * factor - shift;
      sum = Lanes::Fma(LoadUpTo(weights + i, end - i), z, sum);
    }
    total += static_cast<double>(sum.Sum());
  }
  return total;
}

void Scale(const float* x, int64_t count, float factor, float* y) {
  const Lanes f = Lanes::Broadcast(factor);
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t left = count - i;
    StoreUpTo(LoadUpTo(x + i, left) * f, y + i, left);
  }
}

// One tile of the weight gradient: kRows output features by kLanes * 16 input features. The sums
// live in registers over all given rows.
template <int kRows, int kLanes>
inline void GradTile(const float* g, int64_t g_stride, const float* x, int64_t x_stride,
                     int64_t rows, float* gw, int64_t gw_stride) {
  Lanes sums[kRows][kLanes];
  for (int n = 0; n < kRows; ++n) {
    for (int k = 0; k < kLanes; ++k) sums[n][k] = Lanes::Load(gw + n * gw_stride + k * 16);
  }
  for (int64_t r = 0; r < rows; ++r) {
    Lanes xs[kLanes];
    for (int k = 0; k < kLanes; ++k) xs[k] = Lanes::Load(x + r * x_stride + k * 16);
    for (int n = 0; n < kRows; ++n) {
      const Lanes gn = Lanes::Broadcast(g[r * g_stride + n]);
      for (int k = 0; k < kLanes; ++k) sums[n][k] = Lanes::Fma(gn, xs[k], sums[n][k]);
    }
  }
  for (int n = 0; n < kRows; ++n) {
    for (int k = 0; k < kLanes; ++k) sums[n][k].Store(gw + n * gw_stride + k * 16);
  }
}

template <int kLanes>
inline void GradColumns(const float* g, int64_t g_stride, const float* x, int64_t x_stride,
                        int64_t rows, int64_t features, float* gw, int64_t gw_stride) {
  constexpr int kRows = Lanes::kGradRows;
  int64_t n = 0;
  for (; n + kRows <= features; n += kRows) {
    GradTile<kRows, kLanes>(g + n, g_stride, x, x_stride, rows, gw + n * gw_stride, gw_stride);
  }
  for (; n < features; ++n) {
    GradTile<1, kLanes>(g + n, g_stride, x, x_stride, rows, gw + n * gw_stride, gw_stride);
  }
}

void GradWeight(const float* g, int64_t g_stride, const float* x, int64_t x_stride, int64_t rows,
                int64_t begin, int64_t end, int64_t cols, float* gw, int64_t gw_stride) {
  // Rows at a time, so that the columns of x that a tile reads again stay in the cache.
  constexpr int64_t kRowBlock = 256;
  constexpr int64_t kWide = Lanes::kGradLanes * 16;
  for (int64_t r = 0; r < rows; r += kRowBlock) {
    const int64_t here = rows - r < kRowBlock ? rows - r : kRowBlock;
    const float* gr = g + r * g_stride + begin;
    const float* xr = x + r * x_stride;
    float* out = gw + begin * gw_stride;
    int64_t k = 0;
    for (; k + kWide <= cols; k += kWide) {
      GradColumns<Lanes::kGradLanes>(gr, g_stride, xr + k, x_stride, here, end - begin, out + k,
                                     gw_stride);
    }
    for (; k + 16 <= cols; k += 16) {
      GradColumns<1>(gr, g_stride, xr + k, x_stride, here, end - begin, out + k, gw_stride);
    }
    for (; k < cols; ++k) {
      for (int64_t n = 0; n < end - begin; ++n) {
        float sum = out[n * gw_stride + k];
        for (int64_t i = 0; i < here; ++i) {
          sum = __builtin_fmaf(gr[i * g_stride + n], xr[i * x_stride + k], sum);
        }
        out[n * gw_stride + k] = sum;
      }
    }
  }
}

}  // namespace
}  // namespace temper::model::kernels
