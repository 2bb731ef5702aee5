#pragma once

// What an injection of error did, counted inside the operator that injected it.

#include <cstdint>
#include <span>

namespace temper::numerics {

// A sum of non-negative doubles that does not depend on the order or grouping of its parts: a
// 128-bit fixed-point number in units of 2^-70. Metrics stay equal whatever the number of threads
// and workers. Addends are rounded to the unit (8.5e-22); a sum beyond 2^57 (1.4e17) saturates
// there. Thread-compatible.
class ExactSum {
 public:
  ExactSum() = default;
  // From the two words of another process's sum.
  static ExactSum FromWords(uint64_t high, uint64_t low);

  // addend: >= 0; NaN and negative numbers are ignored, infinity saturates.
  void Add(double addend);
  void Merge(const ExactSum& other);

  double value() const;
  uint64_t high() const { return high_; }
  uint64_t low() const { return low_; }
  friend bool operator==(const ExactSum&, const ExactSum&) = default;

 private:
  uint64_t high_ = 0;
  uint64_t low_ = 0;
};

// Counts of one row of the noise table. x is the value before the error, x' after it, both float32
// before any rounding to a storage type. Merge is associative and commutative, exactly.
struct ErrorStats {
  uint64_t calls = 0;       // injections: calls of an error kernel with at least one element
  uint64_t elements = 0;    // values offered to the error
  uint64_t changed = 0;     // values with x' != x, after rounding to storage
  uint64_t non_finite = 0;  // values with x' infinite or NaN; they are left out of the two sums
  ExactSum sum_sq_error;    // sum of (x' - x)^2
  ExactSum sum_sq_value;    // sum of x^2

  void Merge(const ErrorStats& other);

  // sqrt(sum (x' - x)^2 / sum x^2): for relative Gaussian error its scale, to 1 / sqrt(2 elements).
  // 0 where nothing was counted.
  double AchievedScale() const;

  friend bool operator==(const ErrorStats&, const ErrorStats&) = default;
};

// Adds elements, changed, non_finite and the sums of values `before` an error and `after` it, of
// equal number; not the call. The sums are rounded to an ExactSum per 1,024 values.
void CountChanges(std::span<const float> before, std::span<const float> after, ErrorStats* stats);

}  // namespace temper::numerics
