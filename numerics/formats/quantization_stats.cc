#include "numerics/formats/quantization_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "services/base/check.h"

namespace temper::numerics {
namespace {

constexpr int kBinadeShift = 23;  // the exponent
constexpr int kBinShift = kBinadeShift - 6;
constexpr size_t kChunk = 64;
constexpr size_t kBinades = 256;
constexpr size_t kBinsPerBinade = 64;
constexpr double kMostDb = 100.0;
constexpr size_t kStepsPerDb = 100;
constexpr size_t kDecibels = 201;     // the last one holds one step, +100 dB
constexpr double kDeadBelow = 1e-10;  // a smaller value is no signal; also keeps 0 / 0 away

size_t DbStep(double db) {
  const double clamped = std::clamp(db, -kMostDb, kMostDb);
  return static_cast<size_t>(std::lround((clamped + kMostDb) * kStepsPerDb));
}

}  // namespace

double SqnrDb(double sum_sq_value, double sum_sq_error) {
  if (sum_sq_error == 0.0) return kMostDb;
  if (sum_sq_value == 0.0) return -kMostDb;
  return 10.0 * std::log10(sum_sq_value / sum_sq_error);
}

QuantizationStats::QuantizationStats(float element_max)
    : element_max_(element_max), bins_(kBinades), block_row_counts_(kDecibels) {}

QuantizationStats::Bin& QuantizationStats::BinOf(float magnitude) {
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude);
  std::vector<Bin>& binade = bins_[bits >> kBinadeShift];
  if (binade.empty()) binade.resize(kBinsPerBinade);
  return binade[(bits >> kBinShift) % kBinsPerBinade];
}

int64_t& QuantizationStats::BlockRowsAt(size_t step) {
  std::vector<int64_t>& decibel = block_row_counts_[step / kStepsPerDb];
  if (decibel.empty()) decibel.resize(kStepsPerDb);
  return decibel[step % kStepsPerDb];
}

int64_t QuantizationStats::bytes() const {
  size_t total = sizeof(*this) + bins_.size() * sizeof(bins_[0]) +
                 block_row_counts_.size() * sizeof(block_row_counts_[0]);
  for (const std::vector<Bin>& binade : bins_) total += binade.size() * sizeof(Bin);
  for (const std::vector<int64_t>& decibel : block_row_counts_) {
    total += decibel.size() * sizeof(int64_t);
  }
  return static_cast<int64_t>(total);
}

void QuantizationStats::AddBlockRow(std::span<const float> x, std::span<const float> q,
                                    float scale) {
  TEMPER_CHECK(x.size() == q.size(), "a quantized value per value");
  RowSums row;
  for (size_t begin = 0; begin < x.size(); begin += kChunk) {
    const size_t count = std::min(kChunk, x.size() - begin);
    if (AddFiniteChunk(x.data() + begin, q.data() + begin, count, scale, &row)) continue;
    for (size_t i = begin; i < begin + count; ++i) {  // value by value, without those that are not
      if (!AddFiniteChunk(&x[i], &q[i], 1, scale, &row)) ++non_finite_;
    }
  }
  elements_ += row.finite;
  if (row.finite == 0) return;
  ++block_rows_;
  ++BlockRowsAt(DbStep(SqnrDb(row.sum_sq_value, row.sum_sq_error)));
}

// Short loops that compilers vectorise, and sums in locals: a member that is added to waits for
// itself at every value, and for the bins, which the compiler must take for the same memory.
bool QuantizationStats::AddFiniteChunk(const float* x, const float* q, size_t count, float scale,
                                       RowSums* row) {
  constexpr uint32_t kExponent = 0x7f800000u;
  double sq_value[kChunk], sq_error[kChunk], relative[kChunk];
  uint32_t not_finite = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]), q_bits = std::bit_cast<uint32_t>(q[i]);
    not_finite |= ((bits & kExponent) + 0x00800000u) | ((q_bits & kExponent) + 0x00800000u);
  }
  if ((not_finite >> 31) != 0) return false;
  for (size_t i = 0; i < count; ++i) {
    const double value = x[i], error = static_cast<double>(q[i]) - value;
    sq_value[i] = value * value;
    sq_error[i] = error * error;
    relative[i] = std::abs(error) / (std::abs(value) + kDeadBelow);
  }
  const float largest = element_max_;
  uint32_t dead = 0, saturated = 0;
  for (size_t i = 0; i < count; ++i) {
    const float magnitude = std::abs(x[i]);
    dead += (magnitude > kDeadBelow) & (q[i] == 0.0f);
    saturated += magnitude / scale > largest;
  }
  double sum_value = 0.0, sum_error = 0.0, sum_relative = 0.0;
  for (size_t i = 0; i < count; ++i) {
    sum_value += sq_value[i];
    sum_error += sq_error[i];
    sum_relative += relative[i];
  }
  for (size_t i = 0; i < count; ++i) {
    Bin& bin = BinOf(std::abs(x[i]));
    bin.count += 1.0;
    bin.sum_sq_value += sq_value[i];
    bin.sum_sq_error += sq_error[i];
  }
  dead_ += dead;
  saturated_ += saturated;
  sum_relative_error_ += sum_relative;
  row->finite += static_cast<int64_t>(count);
  row->sum_sq_value += sum_value;
  row->sum_sq_error += sum_error;
  return true;
}

void QuantizationStats::AddRows(const FakeQuantizer& quantizer, const float* x, const float* q,
                                const float* scales, int64_t rows, int64_t cols) {
  const int64_t block = quantizer.ValuesPerScale(cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t begin = 0; begin < cols; begin += block) {
      const auto count = static_cast<size_t>(std::min(block, cols - begin));
      AddBlockRow({x + r * cols + begin, count}, {q + r * cols + begin, count}, *scales++);
    }
  }
}

void QuantizationStats::Merge(const QuantizationStats& other) {
  TEMPER_CHECK(element_max_ == other.element_max_, "counts of one format are merged");
  elements_ += other.elements_;
  non_finite_ += other.non_finite_;
  block_rows_ += other.block_rows_;
  dead_ += other.dead_;
  saturated_ += other.saturated_;
  sum_relative_error_ += other.sum_relative_error_;
  for (size_t b = 0; b < kBinades; ++b) {
    if (other.bins_[b].empty()) continue;
    if (bins_[b].empty()) bins_[b].resize(kBinsPerBinade);
    for (size_t i = 0; i < kBinsPerBinade; ++i) {
      bins_[b][i].count += other.bins_[b][i].count;
      bins_[b][i].sum_sq_value += other.bins_[b][i].sum_sq_value;
      bins_[b][i].sum_sq_error += other.bins_[b][i].sum_sq_error;
    }
  }
  for (size_t step = 0; step < kDecibels * kStepsPerDb; ++step) {
    const std::vector<int64_t>& decibel = other.block_row_counts_[step / kStepsPerDb];
    if (!decibel.empty()) BlockRowsAt(step) += decibel[step % kStepsPerDb];
  }
}

double QuantizationStats::sqnr_db() const { return SqnrDbWithoutLargest(0.0); }

double QuantizationStats::SqnrDbWithoutLargest(double share) const {
  auto left_out = static_cast<int64_t>(share * static_cast<double>(elements_));
  double value = 0.0, error = 0.0;
  for (size_t b = kBinades; b-- > 0;) {
    for (size_t i = bins_[b].size(); i-- > 0;) {
      const Bin& bin = bins_[b][i];
      if (bin.count == 0.0) continue;
      // Of the bin that the cut goes through, the part below it.
      const int64_t out = std::min(left_out, static_cast<int64_t>(bin.count));
      left_out -= out;
      const double kept = (bin.count - static_cast<double>(out)) / bin.count;
      value += kept * bin.sum_sq_value;
      error += kept * bin.sum_sq_error;
    }
  }
  return SqnrDb(value, error);
}

double QuantizationStats::BlockRowSqnrDb(double q) const {
  const auto rank =
      std::max<int64_t>(1, static_cast<int64_t>(std::ceil(q * static_cast<double>(block_rows_))));
  int64_t seen = 0;
  for (size_t step = 0; step < kDecibels * kStepsPerDb; ++step) {
    const std::vector<int64_t>& decibel = block_row_counts_[step / kStepsPerDb];
    seen += decibel.empty() ? 0 : decibel[step % kStepsPerDb];
    if (seen >= rank) return (static_cast<double>(step) - kMostDb * kStepsPerDb) / kStepsPerDb;
  }
  return kMostDb;
}

double QuantizationStats::relative_error() const {
  return elements_ > 0 ? sum_relative_error_ / static_cast<double>(elements_) : 0.0;
}

double QuantizationStats::Share(int64_t count) const {
  return elements_ > 0 ? static_cast<double>(count) / static_cast<double>(elements_) : 0.0;
}

}  // namespace temper::numerics
