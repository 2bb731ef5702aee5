#include "numerics/gaussian.h"

#include <algorithm>

#include "numerics/gaussian_counter.h"
#include "numerics/kernels/gaussian_kernels.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

using kernels::GaussianArguments;

// Elements of a row perturbed at a time. Their sums are rounded to an ExactSum per block, so that
// they do not depend on what else was perturbed.
constexpr int64_t kBlockElements = 1024;
// Factors made at a time, for one or several rows: they stay in the first cache.
constexpr int64_t kBatchElements = 2048;
constexpr int64_t kBatchRows = 64;
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

void AddTo(ErrorStats* stats, std::span<const kernels::RowSums> sums) {
  for (const kernels::RowSums& row : sums) {
    stats->changed += static_cast<uint64_t>(row.changed);
    stats->non_finite += static_cast<uint64_t>(row.non_finite);
    stats->sum_sq_error.Add(row.error);
    stats->sum_sq_value.Add(row.value);
  }
}

// A stretch of columns of some rows.
struct Stretch {
  float* y = nullptr;  // first row's first element
  int64_t stride = 0;
  int64_t count = 0;
  int64_t element = 0;  // number of the first column, a multiple of 8
  uint32_t site = 0;
  float scale = 0.0f;
  GaussianDraw draw = GaussianDraw::kExact;
};

// Perturbs a stretch of at most kBlockElements columns of all rows, a few rows at a time.
void ApplyStretch(const Kernels& kernels, const Stretch& s, std::span<const RowKey> rows,
                  ErrorStats* stats) {
  alignas(64) float factors[kBatchElements];
  kernels::RowSums sums[kBatchRows];
  const int64_t factor_stride = (s.count + 15) / 16 * 16;
  const int64_t batch = std::min(kBatchRows, kBatchElements / factor_stride);
  const auto total = static_cast<int64_t>(rows.size());
  for (int64_t r = 0; r < total; r += batch) {
    const int64_t here = std::min(batch, total - r);
    if (s.scale == 0.0f) {
      std::fill_n(factors, kBatchElements, 1.0f);
    } else {
      kernels.gaussian({.out = factors,
                        .stride = factor_stride,
                        .rows = here,
                        .count = s.count,
                        .row = rows.data() + r,
                        .first_counter = CounterOf(s.element, s.draw),
                        .site = s.site,
                        .scale = s.scale,
                        .offset = 1.0f,
                        .numbers = NumbersOf(s.draw)});
    }
    kernels.apply({.y = s.y + r * s.stride,
                   .stride = s.stride,
                   .factors = factors,
                   .factor_stride = factor_stride,
                   .rows = here,
                   .count = s.count,
                   .sums = stats != nullptr ? sums : nullptr});
    if (stats != nullptr) AddTo(stats, {sums, static_cast<size_t>(here)});
  }
}

// Perturbs `count` columns of all rows, the first of them number s.element. Rows longer than a
// block are taken one after the other, so that each is read from memory once.
void ApplyRows(const Kernels& kernels, const Stretch& s, int64_t count,
               std::span<const RowKey> rows, ErrorStats* stats) {
  const bool one_block = s.element % kBlockElements + count <= kBlockElements;
  const size_t together = one_block ? rows.size() : 1;
  for (size_t r = 0; r < rows.size(); r += together) {
    Stretch part = s;
    part.y += static_cast<int64_t>(r) * s.stride;
    for (int64_t left = count; left > 0; left -= part.count) {
      part.count = std::min(left, kBlockElements - part.element % kBlockElements);
      ApplyStretch(kernels, part, rows.subspan(r, together), stats);
      part.y += part.count;
      part.element += part.count;
    }
  }
}

}  // namespace

void ApplyRelativeGaussian(float* y, int64_t rows, int64_t cols, int64_t row_stride,
                           std::span<const RowKey> row_keys, uint32_t site, float scale,
                           ErrorStats* stats, SimdPath path, GaussianDraw draw) {
  if (rows <= 0 || cols <= 0) return;
  TEMPER_CHECK(static_cast<int64_t>(row_keys.size()) == rows, "one key per row");
  TEMPER_CHECK(cols <= kMaxElements, "a row's elements fit the counter");
  const Stretch stretch = {
      .y = y, .stride = row_stride, .site = site, .scale = scale, .draw = draw};
  ApplyRows(Select(path), stretch, cols, row_keys, stats);
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols);
  }
}

void RelativeGaussianFactors(float* factors, int64_t rows, int64_t cols, int64_t row_stride,
                             std::span<const RowKey> row_keys, uint32_t site, float scale,
                             SimdPath path, GaussianDraw draw) {
  if (rows <= 0 || cols <= 0) return;
  TEMPER_CHECK(static_cast<int64_t>(row_keys.size()) == rows, "one key per row");
  TEMPER_CHECK(cols <= kMaxElements, "a row's elements fit the counter");
  Select(path).gaussian({.out = factors,
                         .stride = row_stride,
                         .rows = rows,
                         .count = cols,
                         .row = row_keys.data(),
                         .site = site,
                         .scale = scale,
                         .offset = 1.0f,
                         .numbers = NumbersOf(draw)});
}

void ApplyRelativeGaussianFlat(float* w, int64_t count, uint64_t key, uint32_t site, float scale,
                               ErrorStats* stats, int64_t first_element, SimdPath path,
                               GaussianDraw draw) {
  if (count <= 0) return;
  TEMPER_CHECK(first_element >= 0 && first_element % 8 == 0, "a slice starts at a whole counter");
  TEMPER_CHECK(count <= kMaxElements - first_element, "a weight's elements fit the counter");
  const RowKey row = {.key = key};
  const Stretch stretch = {
      .y = w, .element = first_element, .site = site, .scale = scale, .draw = draw};
  ApplyRows(Select(path), stretch, count, {&row, 1}, stats);
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(count);
  }
}

void FillGaussian(float* out, int64_t count, uint64_t key, uint32_t site, uint32_t position,
                  uint32_t lane, SimdPath path, GaussianDraw draw) {
  if (count <= 0) return;
  TEMPER_CHECK(count <= kMaxElements, "elements fit the counter");
  const RowKey row = {.key = key, .position = position, .lane = lane};
  // fma(n, 1, 0) is n, but for the sign of a zero.
  Select(path).gaussian({.out = out,
                         .rows = 1,
                         .count = count,
                         .row = &row,
                         .site = site,
                         .numbers = NumbersOf(draw)});
}

}  // namespace temper::numerics
