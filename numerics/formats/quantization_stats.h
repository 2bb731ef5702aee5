#pragma once

// What quantization did to a tensor, counted while it passes by: memory does not grow with what is
// fed. With q = Q(x) and e = q - x, over all finite values:
//
//   SQNR            10 log10(mean x^2 / mean e^2) dB; 100 where every e is 0
//   dead zone       share with |x| > 1e-10 and q = 0
//   relative error  mean of |e| / (|x| + 1e-10); each dead value counts 1, so it misleads
//   saturation      share with |x| / scale > the largest element
//
// docs/numerics.md, "Number formats", says how far the streaming quantiles are from exact ones.

#include <cstdint>
#include <span>
#include <vector>

#include "numerics/formats/fake_quantize.h"

namespace temper::numerics {

// 10 log10(sum_sq_value / sum_sq_error), 100 where sum_sq_error is 0, -100 where only
// sum_sq_value is.
double SqnrDb(double sum_sq_value, double sum_sq_error);

// Thread-compatible. Merging in another order may change the last bits of sums, never a count.
class QuantizationStats final {
 public:
  // element_max: 6 or 448, ElementMax(format).
  explicit QuantizationStats(float element_max);

  // A run of values of one row that share `scale`. x, q: of one length. A pair that is not finite
  // is counted and left out of everything else.
  void AddBlockRow(std::span<const float> x, std::span<const float> q, float scale);

  // Whole rows: x and q [rows, cols] without gaps, scales as the quantizer wrote them.
  void AddRows(const FakeQuantizer& quantizer, const float* x, const float* q, const float* scales,
               int64_t rows, int64_t cols);

  void Merge(const QuantizationStats& other);

  int64_t elements() const { return elements_; }  // finite ones
  int64_t non_finite() const { return non_finite_; }
  int64_t block_rows() const { return block_rows_; }
  // Memory held; at most kMostBytes, whatever was fed. Counts take room per binade of magnitude and
  // per decibel that occurred, so that one object per linear and format is affordable.
  int64_t bytes() const;
  static constexpr int64_t kMostBytes = 720 << 10;

  double sqnr_db() const;
  // The same without the `share` of the elements with the largest |x|: what is left when a few
  // massive values do not set the mean. Exact to the 64th part of a binade at the cut.
  double SqnrDbWithoutLargest(double share = 0.001) const;
  // Quantile q in [0, 1] of the SQNR of the block rows, by nearest rank, to 0.005 dB; values beyond
  // +-100 dB count as that. 100 where there is none.
  double BlockRowSqnrDb(double q) const;
  double dead_zone() const { return Share(dead_); }
  double relative_error() const;
  double saturation() const { return Share(saturated_); }

 private:
  // Values whose magnitude has equal exponent and first six fraction bits.
  struct Bin {
    double count = 0.0;  // a double, so that the three are added alike; exact to 2^53
    double sum_sq_value = 0.0;
    double sum_sq_error = 0.0;
    double unused = 0.0;  // a bin is half a cache line and never lies across two
  };
  // Of the finite values of one block row.
  struct RowSums {
    int64_t finite = 0;
    double sum_sq_value = 0.0;
    double sum_sq_error = 0.0;
  };
  // Up to 64 values; false, and nothing is counted, if one of a pair is not finite.
  bool AddFiniteChunk(const float* x, const float* q, size_t count, float scale, RowSums* row);
  double Share(int64_t count) const;
  Bin& BinOf(float magnitude);
  int64_t& BlockRowsAt(size_t step);

  float element_max_;
  int64_t elements_ = 0;
  int64_t non_finite_ = 0;
  int64_t block_rows_ = 0;
  int64_t dead_ = 0;
  int64_t saturated_ = 0;
  double sum_relative_error_ = 0.0;
  // Inner ones are empty until something falls into them.
  std::vector<std::vector<Bin>> bins_;                  // [binade][part of it], ascending
  std::vector<std::vector<int64_t>> block_row_counts_;  // [dB from -100][step of 0.01 dB]
};

}  // namespace temper::numerics
