#pragma once

// Keyed Gaussian numbers and relative Gaussian error.
//
//   word 0..3 = Philox(key, counter = (element / 4, position, site, lane))
//   u1 = float(w0 >> 1) * 2^-31 + 2^-32,  u2 = float(w1 >> 1) * 2^-31
//   n[0], n[1] = sqrt(-2 ln u1) * (cos, sin)(2 pi u2); (w2, w3) give n[2], n[3]
//
// That is GaussianDraw::kExact. kFast makes eight numbers of a counter, one word making two:
//   word 0..3 = Philox(key, counter = (element / 8, position, site, lane))
//   u1 = (w_k mod 2^16 + 1/2) 2^-16,  u2 = floor(w_k / 2^16) 2^-16
//   n[k], n[4 + k] = sqrt(-2 ln u1) * (cos, sin)(2 pi u2),  k = 0 .. 3
// so |n| <= sqrt(34 ln 2) = 4.86.
//
// The logarithm, sine and cosine are fixed polynomials in fused multiply-adds, so scalar, AVX2 and
// AVX-512 agree bit for bit: docs/numerics.md, "Gaussians", has them with their errors. |n| <= 6.66
// in exact draws.
//
// All functions are pure (but for what they write through their pointers) and thread-safe. Values
// of `path` do not change any result.

#include <cstdint>
#include <span>

#include "numerics/error_stats.h"
#include "numerics/error_type.h"
#include "numerics/row_key.h"
#include "numerics/simd_path.h"

namespace temper::numerics {

// y[r, c] *= 1 + scale * n(row_keys[r], site, c), in place, as fl(y * fl(1 + scale * n)).
// y: [rows, cols] floats, row r at y + r * row_stride. row_keys: one per row. site: numerics::Site.
// scale: finite, >= 0; 0 leaves y alone and counts elements but no change. stats: may be null; the
// call is added to it.
void ApplyRelativeGaussian(float* y, int64_t rows, int64_t cols, int64_t row_stride,
                           std::span<const RowKey> row_keys, uint32_t site, float scale,
                           ErrorStats* stats, SimdPath path = BestSimdPath(),
                           GaussianDraw draw = GaussianDraw::kExact);

// factors[r, c] = fl(1 + scale * n(row_keys[r], site, c)): what ApplyRelativeGaussian multiplies
// by. factors: [rows, cols], row r at factors + r * row_stride.
void RelativeGaussianFactors(float* factors, int64_t rows, int64_t cols, int64_t row_stride,
                             std::span<const RowKey> row_keys, uint32_t site, float scale,
                             SimdPath path = BestSimdPath(),
                             GaussianDraw draw = GaussianDraw::kExact);

// The same error on a whole weight or its gradient: element = flat index (out * in_features + in),
// position = lane = 0. first_element: index in the full tensor of w[0], a multiple of 8, so that
// slices can be perturbed apart. first_element + count <= 2^34 (the counter's 32 bits hold
// element / 4); larger is a bug of the caller and ends the process.
void ApplyRelativeGaussianFlat(float* w, int64_t count, uint64_t key, uint32_t site, float scale,
                               ErrorStats* stats, int64_t first_element = 0,
                               SimdPath path = BestSimdPath(),
                               GaussianDraw draw = GaussianDraw::kExact);

// out[i] = n(key, site, position, lane, element i).
void FillGaussian(float* out, int64_t count, uint64_t key, uint32_t site, uint32_t position = 0,
                  uint32_t lane = 0, SimdPath path = BestSimdPath(),
                  GaussianDraw draw = GaussianDraw::kExact);

}  // namespace temper::numerics
