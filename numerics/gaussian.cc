#include "numerics/gaussian.h"

#include <algorithm>

#include "numerics/kernels/gaussian_kernels.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

using kernels::BlockSums;
using kernels::GaussianCounter;

// Elements perturbed at a time: their factors stay in the first cache. Sums are rounded to an
// ExactSum per block, so that they do not depend on what else was perturbed.
constexpr int64_t kBlockElements = 1024;
constexpr int64_t kMaxElements = int64_t{1} << 34;

struct Kernels {
  kernels::GaussianFn gaussian;
  kernels::ApplyFn apply;
};

Kernels Select(SimdPath path) {
  switch (path) {
    case SimdPath::kAvx512:
      return {kernels::GaussianAvx512, kernels::ApplyAvx512};
    case SimdPath::kAvx2:
      return {kernels::GaussianAvx2, kernels::ApplyAvx2};
    case SimdPath::kScalar:
      break;
  }
  return {kernels::GaussianScalar, kernels::ApplyScalar};
}

GaussianCounter CounterOf(const RowKey& row, uint32_t site, int64_t element) {
  return {.key = row.key,
          .first_counter = static_cast<uint32_t>(element / 4),
          .position = row.position,
          .site = site,
          .lane = row.lane};
}

double SumLanes(double* lanes) {
  for (int width = BlockSums::kLanes / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

// Perturbs `count` consecutive elements, the first of them number `element` of the row.
void ApplyToRow(const Kernels& kernels, float* y, int64_t count, const RowKey& row, uint32_t site,
                float scale, int64_t element, ErrorStats* stats) {
  alignas(64) float factors[kBlockElements];
  BlockSums sums;
  while (count > 0) {
    const int64_t block = std::min(count, kBlockElements - element % kBlockElements);
    if (scale == 0.0f) {
      std::fill_n(factors, block, 1.0f);
    } else {
      kernels.gaussian(factors, block, CounterOf(row, site, element), scale, 1.0f);
    }
    kernels.apply(y, factors, block, &sums);
    if (stats != nullptr) {
      stats->changed += static_cast<uint64_t>(sums.changed);
      stats->non_finite += static_cast<uint64_t>(sums.non_finite);
      stats->sum_sq_error.Add(SumLanes(sums.error));
      stats->sum_sq_value.Add(SumLanes(sums.value));
    }
    y += block;
    element += block;
    count -= block;
  }
}

}  // namespace

void ApplyRelativeGaussian(float* y, int64_t rows, int64_t cols, int64_t row_stride,
                           std::span<const RowKey> row_keys, uint32_t site, float scale,
                           ErrorStats* stats, SimdPath path) {
  if (rows <= 0 || cols <= 0) return;
  TEMPER_CHECK(static_cast<int64_t>(row_keys.size()) == rows, "one key per row");
  TEMPER_CHECK(cols <= kMaxElements, "a row's elements fit the counter");
  const Kernels kernels = Select(path);
  for (int64_t r = 0; r < rows; ++r) {
    ApplyToRow(kernels, y + r * row_stride, cols, row_keys[static_cast<size_t>(r)], site, scale, 0,
               stats);
  }
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols);
  }
}

void RelativeGaussianFactors(float* factors, int64_t rows, int64_t cols, int64_t row_stride,
                             std::span<const RowKey> row_keys, uint32_t site, float scale,
                             SimdPath path) {
  if (rows <= 0 || cols <= 0) return;
  TEMPER_CHECK(static_cast<int64_t>(row_keys.size()) == rows, "one key per row");
  TEMPER_CHECK(cols <= kMaxElements, "a row's elements fit the counter");
  const Kernels kernels = Select(path);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = factors + r * row_stride;
    kernels.gaussian(row, cols, CounterOf(row_keys[static_cast<size_t>(r)], site, 0), scale, 1.0f);
  }
}

void ApplyRelativeGaussianFlat(float* w, int64_t count, uint64_t key, uint32_t site, float scale,
                               ErrorStats* stats, int64_t first_element, SimdPath path) {
  if (count <= 0) return;
  TEMPER_CHECK(first_element >= 0 && first_element % 4 == 0, "a slice starts at a whole counter");
  TEMPER_CHECK(count <= kMaxElements - first_element, "a weight's elements fit the counter");
  ApplyToRow(Select(path), w, count, {.key = key}, site, scale, first_element, stats);
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(count);
  }
}

void FillGaussian(float* out, int64_t count, uint64_t key, uint32_t site, uint32_t position,
                  uint32_t lane, SimdPath path) {
  if (count <= 0) return;
  TEMPER_CHECK(count <= kMaxElements, "elements fit the counter");
  const RowKey row = {.key = key, .position = position, .lane = lane};
  // fma(n, 1, 0) is n, but for the sign of a zero.
  Select(path).gaussian(out, count, CounterOf(row, site, 0), 1.0f, 0.0f);
}

}  // namespace temper::numerics
