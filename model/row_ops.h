#pragma once

// What both engines need besides the kernels: the kernels of this machine, rotary angles, and the
// choice of a token. No LibTorch here.

#include <cstdint>
#include <vector>

#include "model/kernels/row_kernels.h"
#include "numerics/simd_path.h"

namespace temper::model {

// The kernels of a path that this machine supports. Every path gives the same bits.
const kernels::RowKernels& KernelsFor(numerics::SimdPath path);
inline const kernels::RowKernels& BestKernels() { return KernelsFor(numerics::BestSimdPath()); }

// Cosines and sines of the rotary embedding: angle(position, i) = position * theta^(-2 i /
// head_dim), in float32 as transformers computes it.
class RopeTable final {
 public:
  RopeTable(double theta, int64_t head_dim);
  // Makes positions 0 .. positions - 1 available. Not thread-safe with the accessors.
  void Extend(int64_t positions);
  // [head_dim / 2]; position < what Extend was given.
  const float* cosine(int64_t position) const { return &cosine_[position * half_]; }
  const float* sine(int64_t position) const { return &sine_[position * half_]; }

 private:
  int64_t half_;
  int64_t positions_ = 0;
  std::vector<float> inverse_frequency_;
  std::vector<float> cosine_;
  std::vector<float> sine_;
};

// Softmax of one row of logits.
struct RowSoftmax {
  double total = 0.0;  // sum of the weights
  float max = 0.0f;    // largest scaled logit
  double log_total = 0.0;
  bool finite = false;  // no logit was infinite or NaN

  // log-probability of an entry with this logit.
  float LogProb(float logit, float inv_temperature) const;
};
// weights: [count], overwritten with exp(logit / temperature - max).
RowSoftmax ComputeSoftmax(const kernels::RowKernels& kernels, const float* logits, int64_t count,
                          float inv_temperature, float* weights);

// The entry that a uniform number in (0, 1) selects: the first i with sum of weights[0 .. i] > u *
// total, summed in blocks of 64 from the front in double. Rounding cannot select a weight of 0.
int32_t ChooseToken(const float* weights, int64_t count, double total, double uniform);

// The first of the largest entries.
int32_t ArgMax(const float* logits, int64_t count);

}  // namespace temper::model
