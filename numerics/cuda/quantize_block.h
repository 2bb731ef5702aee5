#pragma once

// Bodies of the kernels of fake quantization: numerics/formats/fake_quantize.h, but for tiles
// (block_2d).

#include "numerics/cuda/format_element.h"
#include "numerics/cuda/keyed_normals.h"
#include "numerics/cuda/row_counting.h"
#include "numerics/cuda/row_maximum.h"

namespace temper::numerics::cuda {
namespace {

// In shared memory.
struct QuantizeShared {
  TileCounts counts;
  RowMaximum maximum;       // of the row
  uint32_t amax[kThreads];  // of each thread's four values in the tile
};

// Threads whose values share a scale.
TEMPER_HOST_DEVICE constexpr int ThreadsPerScale(QuantizeFormat format) {
  return format == QuantizeFormat::kMxfp4   ? 32 / kPerThread
         : format == QuantizeFormat::kNvfp4 ? 16 / kPerThread
                                            : 128 / kPerThread;
}

// Blocks of the kernel that a row is cut into.
TEMPER_HOST_DEVICE constexpr int64_t BlocksPerRow(const QuantizeArguments& a) {
  return a.span == QuantizeSpan::kRow ? 1 : TilesOf(a.cols);
}

// Block `block` of rows * TilesOf(cols) of the kernel that fills a zeroed tensor_amax.
TEMPER_HOST_DEVICE inline void TensorAmaxBlock(const QuantizeArguments& a, uint32_t block,
                                               RowMaximum* shared) {
  const TilePlace at = PlaceOf(block, a.cols);
  FindRowMaximum(a.x + at.row * a.x_stride + at.first, Smaller(kTileElements, a.cols - at.first),
                 shared);
  ForEachThread([&](int thread) {
    if (thread != 0) return;
    AtomicMax(&a.tensor_amax->finite_bits, shared->finite_bits[0]);
    AtomicMax(&a.tensor_amax->non_finite, shared->non_finite[0]);
  });
}

// What is known of the tensor or row before its blocks are looked at.
struct WholeAmax {
  uint32_t finite_bits;
  uint32_t non_finite;
};

// The rounding words of four neighbours, the first in this column.
TEMPER_HOST_DEVICE inline FourWords RoundingWords(const QuantizeArguments& a, int64_t row,
                                                  int64_t column) {
  const auto element = static_cast<uint64_t>(row * a.element_stride + column);
  const auto counter = static_cast<uint32_t>(element / 4);
  const RowKey key = a.row_keys[row * a.key_stride];
  const FourWords words = KeyedWords(key, a.site, counter);
  if (element % 4 == 0) return words;
  const FourWords next = KeyedWords(key, a.site, counter + 1);
  if (element % 4 == 1) return {{words.w[1], words.w[2], words.w[3], next.w[0]}};
  if (element % 4 == 2) return {{words.w[2], words.w[3], next.w[0], next.w[1]}};
  return {{words.w[3], next.w[0], next.w[1], next.w[2]}};
}

// The scale of a thread's four values. Where it is the whole tensor's or row's, that of FP8 alone.
template <QuantizeFormat format>
TEMPER_HOST_DEVICE inline ElementScale ScaleOfThread(const QuantizeArguments& a,
                                                     const WholeAmax& whole,
                                                     const QuantizeShared* shared, int thread) {
  if (format == QuantizeFormat::kFp8 && a.span != QuantizeSpan::kBlock) {
    return ScaleOf<format>(whole.non_finite != 0 ? kInfinityBits : whole.finite_bits, 0);
  }
  constexpr int kTogether = ThreadsPerScale(format);
  const int begin = thread / kTogether * kTogether;
  uint32_t amax = 0;
  for (int t = begin; t < begin + kTogether; ++t) amax = Larger(amax, shared->amax[t]);
  return ScaleOf<format>(amax, whole.finite_bits);
}

// Writes a scale for the thread whose values are the first under it.
template <QuantizeFormat format>
TEMPER_HOST_DEVICE inline void StoreScale(const QuantizeArguments& a, int64_t row, int64_t column,
                                          float scale) {
  if (format == QuantizeFormat::kFp8 && a.span != QuantizeSpan::kBlock) {
    if (column == 0) a.scales[row] = scale;
    return;
  }
  constexpr int64_t kBlock = kPerThread * ThreadsPerScale(format);
  if (column % kBlock != 0) return;
  a.scales[row * ((a.cols + kBlock - 1) / kBlock) + column / kBlock] = scale;
}

// One tile of a row: columns first .. first + count - 1.
template <QuantizeFormat format, bool stochastic>
TEMPER_HOST_DEVICE inline void QuantizeTile(const QuantizeArguments& a, const WholeAmax& whole,
                                            int64_t row, int64_t first, QuantizeShared* shared) {
  const auto count = static_cast<int>(Smaller(kTileElements, a.cols - first));
  const float* x = a.x + row * a.x_stride + first;
  const bool counted = a.counts != nullptr;
  if (counted) BeginCounting(&shared->counts);
  ForEachThread([=](int thread) {
    const int here = static_cast<int>(Smaller(kPerThread, count - kPerThread * thread));
    const FourFloats four = LoadFour(x + kPerThread * thread, here);  // zeros beyond the row
    uint32_t amax = 0;
    for (int i = 0; i < 4; ++i) amax = Larger(amax, kernels::Bits(four.v[i]) & 0x7fffffffu);
    shared->amax[thread] = amax;
  });
  ForEachThread([&](int thread) {
    const int begin = kPerThread * thread;
    const int here = static_cast<int>(Smaller(kPerThread, count - begin));
    if (here <= 0) return;
    const ElementScale scale = ScaleOfThread<format>(a, whole, shared, thread);
    const FourFloats before = LoadFour(x + begin, here);
    FourWords words = {};
    if constexpr (stochastic) words = RoundingWords(a, row, first + begin);
    FourFloats after;
    for (int i = 0; i < 4; ++i) {
      after.v[i] = Quantized<format, stochastic>(before.v[i], scale, words.w[i]);
    }
    StoreFour(after, a.out + row * a.out_stride + first + begin, here);
    if (counted) CountFour(&shared->counts, thread, here, before, after);
    if (a.scales != nullptr) StoreScale<format>(a, row, first + begin, scale.scale);
  });
  if (counted) EndCounting(&shared->counts, count, first == 0, a.cols, a.counts + row);
}

// Block `block` of rows * BlocksPerRow.
template <QuantizeFormat format, bool stochastic>
TEMPER_HOST_DEVICE inline void QuantizeBlock(const QuantizeArguments& a, uint32_t block,
                                             QuantizeShared* shared) {
  if (a.span == QuantizeSpan::kRow) {
    FindRowMaximum(a.x + int64_t{block} * a.x_stride, a.cols, &shared->maximum);
    const WholeAmax whole = {shared->maximum.finite_bits[0], shared->maximum.non_finite[0]};
    for (int64_t first = 0; first < a.cols; first += kTileElements) {
      QuantizeTile<format, stochastic>(a, whole, block, first, shared);
    }
    return;
  }
  WholeAmax whole = {};
  if (a.span == QuantizeSpan::kTensor) {
    whole = {a.tensor_amax->finite_bits, a.tensor_amax->non_finite};
  }
  const TilePlace at = PlaceOf(block, a.cols);
  QuantizeTile<format, stochastic>(a, whole, at.row, at.first, shared);
}

}  // namespace
}  // namespace temper::numerics::cuda
