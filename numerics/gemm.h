#pragma once

// The engine's own float32 matrix product: a row of the result is the same bits whatever it is
// multiplied with. ATen's product of a row may depend on how many rows there are, which would make
// a completion depend on its batch; here
//   y[m, n] = fma(x[m, K-1], w[n, K-1], ... fma(x[m, 1], w[n, 1], fma(x[m, 0], w[n, 0], 0)))
// is one chain of fused multiply-adds with k ascending, on every path (scalar, AVX2, AVX-512), for
// any M, any split of rows between threads and any blocking.

#include <cstdint>
#include <memory>

#include "numerics/simd_path.h"

namespace temper::numerics {

// A weight matrix in the kernel's order, made once per weight version. Owns its memory; immutable
// and thread-safe afterwards. Layout: panels of 16 output features, each [in_features][16], the
// last panel filled up with zeros.
class PackedMatrix {
 public:
  static constexpr int64_t kPanel = 16;

  PackedMatrix() = default;

  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  // Start of the panel that holds output features 16 p .. 16 p + 15; 64-byte aligned.
  const float* panel(int64_t p) const { return values_.get() + p * kPanel * in_features_; }

 private:
  friend PackedMatrix Pack(const float* w, int64_t out_features, int64_t in_features, int64_t ldw);
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float[], Free> values_;
  int64_t out_features_ = 0;
  int64_t in_features_ = 0;
};

// Packs w: [out_features, in_features], row n at w + n * ldw (as nn.Linear stores it). Sizes >= 0.
PackedMatrix Pack(const float* w, int64_t out_features, int64_t in_features, int64_t ldw);
inline PackedMatrix Pack(const float* w, int64_t out_features, int64_t in_features) {
  return Pack(w, out_features, in_features, in_features);
}

// y = x W^T. x: [M, in_features], row m at x + m * ldx. y: [M, out_features], row m at y + m * ldy,
// overwritten. x and y must not overlap. Runs on the calling thread; threads may take rows apart.
void Gemm(const float* x, int64_t M, int64_t ldx, const PackedMatrix& w, float* y, int64_t ldy,
          SimdPath path = BestSimdPath());

}  // namespace temper::numerics
