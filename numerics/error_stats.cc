#include "numerics/error_stats.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "services/base/check.h"

namespace temper::numerics {
namespace {

// The high word counts units of 2^-6, the low word units of 2^-70; the sum stays below 2^57.
constexpr double kHighUnit = 0x1p-6;
constexpr double kLimit = 0x1p57;
constexpr uint64_t kHighLimit = uint64_t{1} << 63;

}  // namespace

ExactSum ExactSum::FromWords(uint64_t high, uint64_t low) {
  ExactSum sum;
  sum.high_ = high < kHighLimit ? high : kHighLimit;
  sum.low_ = high < kHighLimit ? low : 0;
  return sum;
}

void ExactSum::Add(double addend) {
  if (!(addend > 0.0)) return;
  if (addend >= kLimit) {
    Merge(FromWords(kHighLimit, 0));
    return;
  }
  // Both steps are exact but the last: a double's fraction below 2^-70 is rounded away.
  const auto high = static_cast<int64_t>(addend * 0x1p6);
  const double rest = addend - static_cast<double>(high) * kHighUnit;  // [0, 2^-6)
  const auto middle = static_cast<int64_t>(rest * 0x1p38);             // units of 2^-38, < 2^32
  const double last = rest - static_cast<double>(middle) * 0x1p-38;
  const auto low = static_cast<uint64_t>(static_cast<int64_t>(last * 0x1p70 + 0.5));  // <= 2^32
  ExactSum part;
  part.high_ = static_cast<uint64_t>(high);
  const uint64_t shifted = static_cast<uint64_t>(middle) << 32;
  part.low_ = shifted + low;
  if (part.low_ < shifted) ++part.high_;
  Merge(part);
}

void ExactSum::Merge(const ExactSum& other) {
  const uint64_t low = low_ + other.low_;
  const uint64_t carry = low < low_ ? 1 : 0;
  // Both highs are at most 2^63, so that their sum wraps at most to 0 or 1: saturate before adding.
  if (high_ >= kHighLimit || other.high_ >= kHighLimit ||
      high_ + other.high_ + carry >= kHighLimit) {
    high_ = kHighLimit;
    low_ = 0;
    return;
  }
  high_ += other.high_ + carry;
  low_ = low;
}

double ExactSum::value() const {
  return static_cast<double>(high_) * kHighUnit + static_cast<double>(low_) * 0x1p-70;
}

void ErrorStats::Merge(const ErrorStats& other) {
  calls += other.calls;
  elements += other.elements;
  changed += other.changed;
  non_finite += other.non_finite;
  sum_sq_error.Merge(other.sum_sq_error);
  sum_sq_value.Merge(other.sum_sq_value);
}

double ErrorStats::AchievedScale() const {
  const double value = sum_sq_value.value();
  return value > 0.0 ? std::sqrt(sum_sq_error.value() / value) : 0.0;
}

void CountChanges(std::span<const float> before, std::span<const float> after, ErrorStats* stats) {
  TEMPER_CHECK(before.size() == after.size(), "values before and after one error");
  constexpr size_t kBlock = 1024, kLanes = 8;
  for (size_t first = 0; first < before.size(); first += kBlock) {
    const size_t end = std::min(first + kBlock, before.size());
    double error[kLanes] = {}, value[kLanes] = {};
    for (size_t i = first; i < end; ++i) {
      if (!std::isfinite(after[i])) {
        ++stats->non_finite;
        continue;
      }
      const double change = static_cast<double>(after[i] - before[i]);
      error[i % kLanes] += change * change;
      value[i % kLanes] += static_cast<double>(before[i]) * static_cast<double>(before[i]);
      stats->changed += after[i] != before[i] ? 1 : 0;
    }
    for (size_t lane = 1; lane < kLanes; ++lane) {
      error[0] += error[lane];
      value[0] += value[lane];
    }
    stats->sum_sq_error.Add(error[0]);
    stats->sum_sq_value.Add(value[0]);
  }
  stats->elements += before.size();
}

}  // namespace temper::numerics
