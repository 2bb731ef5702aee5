#include "model/row_ops.h"

#include <algorithm>
#include <cmath>

namespace temper::model {

const kernels::RowKernels& KernelsFor(numerics::SimdPath path) {
  switch (path) {
    case numerics::SimdPath::kAvx512:
      return kernels::kAvx512Kernels;
    case numerics::SimdPath::kAvx2:
      return kernels::kAvx2Kernels;
    case numerics::SimdPath::kScalar:
      break;
  }
  return kernels::kScalarKernels;
}

RopeTable::RopeTable(double theta, int64_t head_dim) : half_(head_dim / 2) {
  for (int64_t i = 0; i < half_; ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    inverse_frequency_.push_back(1.0f / power);
  }
}

void RopeTable::Extend(int64_t positions) {
  for (; positions_ < positions; ++positions_) {
    for (int64_t i = 0; i < half_; ++i) {
      const float angle =
          static_cast<float>(positions_) * inverse_frequency_[static_cast<size_t>(i)];
      cosine_.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      sine_.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

float RowSoftmax::LogProb(float logit, float inv_temperature) const {
  return static_cast<float>(static_cast<double>(logit * inv_temperature - max) - log_total);
}

RowSoftmax ComputeSoftmax(const kernels::RowKernels& kernels, const float* logits, int64_t count,
                          float inv_temperature, float* weights) {
  RowSoftmax softmax;
  softmax.total = kernels.softmax_weights(logits, count, inv_temperature, weights, &softmax.max);
  softmax.finite = std::isfinite(softmax.max) && std::isfinite(softmax.total);
  softmax.log_total = std::log(softmax.total);
  return softmax;
}

int32_t ChooseToken(const float* weights, int64_t count, double total, double uniform) {
  constexpr int64_t kBlock = 64;
  const double target = uniform * total;
  double before = 0.0;
  int64_t last = 0;
  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t end = std::min(block + kBlock, count);
    // Four chains keep the sum quick; their order is fixed.
    double sums[4] = {};
    for (int64_t i = block; i < end; ++i) sums[i % 4] += static_cast<double>(weights[i]);
    const double block_sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (before + block_sum <= target) {
      if (block_sum > 0.0) last = block;
      before += block_sum;
      continue;
    }
    double sum = before;
    for (int64_t i = block; i < end; ++i) {
      sum += static_cast<double>(weights[i]);
      if (weights[i] > 0.0f) last = i;
      if (sum > target) return static_cast<int32_t>(last);
    }
    return static_cast<int32_t>(last);
  }
  // The sum fell short of the total by rounding: the last entry that has a weight.
  for (int64_t i = std::min(last + kBlock, count) - 1; i >= last; --i) {
    if (weights[i] > 0.0f) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(last);
}

int32_t ArgMax(const float* logits, int64_t count) {
  return static_cast<int32_t>(std::max_element(logits, logits + count) - logits);
}

}  // namespace temper::model
