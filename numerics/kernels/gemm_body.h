#pragma once

// The blocking of the matrix product over a vector type V with F, kWidth, Zero(), Load(const
// float*), Broadcast(const float*), Fma(a, b, c), Store(float*, F). A tile of kRows x kPanels
// panels stays in registers while k runs over all of K: each number of y is one chain of fused
// multiply-adds.
//
// Panels are 16 wide. A tile reads K * 16 * kPanels weights from the second-level cache for every
// kRows rows, which leaves the multipliers busy; a block of rows is small enough that x stays there
// too while the panels pass by.

#include <cstdint>

#include "numerics/kernels/gemm_kernels.h"

namespace temper::numerics::kernels {
namespace {

// Rows of x kept in the second-level cache while all panels pass: 192 x 576 floats are 432 KiB.
constexpr int64_t kRowBlock = 192;

template <class V, int kRows, int kPanels>
inline void Tile(const float* x, int64_t ldx, const float* panel, int64_t K, float* y,
                 int64_t ldy) {
  constexpr int kPerPanel = static_cast<int>(kGemmPanel) / V::kWidth;
  constexpr int kVectors = kPanels * kPerPanel;
  typename V::F acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) acc[r][v] = V::Zero();
  }
  const int64_t panel_stride = kGemmPanel * K;
  for (int64_t k = 0; k < K; ++k) {
    typename V::F w[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      w[v] = V::Load(panel + (v / kPerPanel) * panel_stride + (v % kPerPanel) * V::kWidth);
    }
    panel += kGemmPanel;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename V::F xs = V::Broadcast(x + r * ldx + k);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[r][v] = V::Fma(xs, w[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) V::Store(y + r * ldy + v * V::kWidth, acc[r][v]);
  }
}

// `rows` rows (at most kRows) against kPanels panels; recursion picks the tile of that many rows.
template <class V, int kRows, int kPanels>
inline void TileOfRows(int64_t rows, const float* x, int64_t ldx, const float* panel, int64_t K,
                       float* y, int64_t ldy) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      TileOfRows<V, kRows - 1, kPanels>(rows, x, ldx, panel, K, y, ldy);
      return;
    }
  }
  Tile<V, kRows, kPanels>(x, ldx, panel, K, y, ldy);
}

// All rows of the block against kPanels whole panels, in tiles of nearly equal height: thirteen
// rows are 7 + 6 and not 12 + 1, because a tile of one row takes almost as long as one of four.
template <class V, int kRows, int kPanels>
inline void Columns(const float* x, int64_t rows, int64_t ldx, const float* panel, int64_t K,
                    float* y, int64_t ldy) {
  const int64_t tiles = (rows + kRows - 1) / kRows;
  const int64_t height = (rows + tiles - 1) / tiles;
  for (int64_t r = 0; r < rows; r += height) {
    const int64_t left = rows - r < height ? rows - r : height;
    TileOfRows<V, kRows, kPanels>(left, x + r * ldx, ldx, panel, K, y + r * ldy, ldy);
  }
}

// The last features, fewer than a panel: into a full tile of scratch, then copied.
template <class V, int kRows>
inline void Edge(const float* x, int64_t rows, int64_t ldx, const float* panel, int64_t K, float* y,
                 int64_t ldy, int64_t features) {
  alignas(64) float scratch[kRows * kGemmPanel];
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t left = rows - r < kRows ? rows - r : kRows;
    TileOfRows<V, kRows, 1>(left, x + r * ldx, ldx, panel, K, scratch, kGemmPanel);
    for (int64_t i = 0; i < left; ++i) {
      for (int64_t n = 0; n < features; ++n) y[(r + i) * ldy + n] = scratch[i * kGemmPanel + n];
    }
  }
}

// kRows x kPanels: the tile for many rows. kFewRows x kManyPanels: for at most kFewRows rows, where
// a taller tile would leave the multipliers waiting for one another.
template <class V, int kRows, int kPanels, int kFewRows, int kManyPanels>
inline void GemmLoop(const GemmArguments& g) {
  const int64_t whole = g.N / kGemmPanel;
  const int64_t panel_size = kGemmPanel * g.K;
  for (int64_t m = 0; m < g.rows; m += kRowBlock) {
    const int64_t rows = g.rows - m < kRowBlock ? g.rows - m : kRowBlock;
    const float* x = g.x + m * g.ldx;
    float* y = g.y + m * g.ldy;
    int64_t p = 0;
    if (rows <= kFewRows) {
      for (; p + kManyPanels <= whole; p += kManyPanels) {
        Columns<V, kFewRows, kManyPanels>(x, rows, g.ldx, g.panels + p * panel_size, g.K,
                                          y + p * kGemmPanel, g.ldy);
      }
    }
    for (; p + kPanels <= whole; p += kPanels) {
      Columns<V, kRows, kPanels>(x, rows, g.ldx, g.panels + p * panel_size, g.K, y + p * kGemmPanel,
                                 g.ldy);
    }
    for (; p < whole; ++p) {
      Columns<V, kRows, 1>(x, rows, g.ldx, g.panels + p * panel_size, g.K, y + p * kGemmPanel,
                           g.ldy);
    }
    if (g.N % kGemmPanel != 0) {
      Edge<V, kRows>(x, rows, g.ldx, g.panels + whole * panel_size, g.K, y + whole * kGemmPanel,
                     g.ldy, g.N % kGemmPanel);
    }
  }
}

}  // namespace
}  // namespace temper::numerics::kernels
