#pragma once

// Fake quantization on a device (noise_conformance.h says what that is), held against the CPU's:
// the same bits, scales and counts.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "numerics/cuda/launch_checks.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/kernels/error_kernels.h"
#include "tests/unit/numerics/cuda/noise_conformance.h"
#include "tests/unit/numerics/formats/format_test_support.h"

namespace temper::numerics::cuda {

struct QuantizeCase {
  FormatSpec spec;
  Operand operand = Operand::kWeight;
  std::vector<float> x;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  bool weight() const { return operand == Operand::kWeight; }
  // Of stochastic rounding.
  std::vector<RowKey> keys() const {
    return weight() ? std::vector<RowKey>{{.key = 5}} : Keys(rows, 8);
  }
};

struct QuantizeResult {
  std::vector<float> values;
  std::vector<float> scales;
  ErrorStats counts;
};

// What the CPU's kernels count where x becomes `after`, 1,024 elements of a row at a time.
inline ErrorStats CountsOfChange(const QuantizeCase& c, const std::vector<float>& after) {
  ErrorStats stats = {.calls = 1, .elements = static_cast<uint64_t>(c.rows * c.cols)};
  std::vector<float> x = c.x;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t first = 0; first < c.cols; first += 1024) {
      kernels::RowSums sums;
      kernels::ReplaceScalar({.y = x.data() + r * c.stride + first,
                              .after = after.data() + r * c.stride + first,
                              .count = std::min<int64_t>(1024, c.cols - first),
                              .sums = &sums});
      stats.changed += static_cast<uint64_t>(sums.changed);
      stats.non_finite += static_cast<uint64_t>(sums.non_finite);
      stats.sum_sq_error.Add(sums.error);
      stats.sum_sq_value.Add(sums.value);
    }
  }
  return stats;
}

inline QuantizeResult QuantizeOnCpu(const QuantizeCase& c) {
  const FakeQuantizer quantizer = Quantizer(c.spec, c.operand);
  QuantizeResult result = {.values = c.x};
  result.scales.resize(static_cast<size_t>(c.rows * quantizer.ScalesPerRow(c.cols)));
  const MatrixRows matrix = {.x = c.x.data(),
                             .out = result.values.data(),
                             .rows = c.rows,
                             .cols = c.cols,
                             .x_stride = c.stride,
                             .out_stride = c.stride,
                             .scales = result.scales.data()};
  if (c.weight()) {
    FakeQuantizer::WeightPart part = {.key = c.keys()[0].key, .site = kSite};
    if (quantizer.NeedsAmax()) part.amax = quantizer.PartAmax(matrix.x, c.rows, c.cols, c.stride);
    quantizer.QuantizePart(matrix, part);
  } else {
    quantizer.QuantizeRows(matrix, c.keys(), kSite);
  }
  result.counts = CountsOfChange(c, result.values);
  return result;
}

template <class Device>
class QuantizeConformance : public NoiseConformance<Device> {
 protected:
  // On the device, into another matrix and then in place.
  void ExpectAsOnCpu(const QuantizeCase& c) {
    const QuantizeResult expected = QuantizeOnCpu(c);
    this->device_.FreeAll();
    const std::span<float> from = this->Copy(c.x), to = this->Copy(c.x);
    const std::span<float> scales = this->template Make<float>(expected.scales.size());
    const auto counts = this->template Make<RowCounts>(static_cast<size_t>(c.rows));
    QuantizeArguments a = MakeQuantizeArguments(c.spec, c.operand).value();
    a.x = from.data();
    a.rows = c.rows;
    a.cols = c.cols;
    a.x_stride = a.out_stride = c.stride;
    a.scales = scales.data();
    a.tensor_amax = this->template Make<TensorAmax>(1).data();
    a.row_keys = this->Copy(c.keys()).data();
    a.element_stride = c.weight() ? c.cols : 0;
    a.key_stride = c.weight() ? 0 : 1;
    a.site = kSite;
    a.counts = counts.data();
    for (const std::span<float> out : {to, from}) {
      a.out = out.data();
      std::fill(counts.begin(), counts.end(), RowCounts());
      ASSERT_TRUE(this->device_.Quantize(a).ok());
      ASSERT_EQ(this->Bits(out), this->Bits(expected.values)) << Describe(c.spec) << " " << c.cols;
      ASSERT_EQ(this->Bits(scales), this->Bits(expected.scales)) << Describe(c.spec) << c.cols;
      ASSERT_EQ(CountsOfRows(counts), expected.counts) << Describe(c.spec) << " " << c.cols;
    }
  }
};

TYPED_TEST_SUITE_P(QuantizeConformance);

TYPED_TEST_P(QuantizeConformance, FormatsAreTheCpusBitForBit) {
  for (const Operand operand : {Operand::kWeight, Operand::kActivation}) {
    for (const FormatSpec& spec : AllSpecs(operand)) {
      if (spec.block_2d) continue;
      for (const int64_t cols : {1, 15, 33, 128, 1001, 1024, 2500}) {
        QuantizeCase c = {.spec = spec, .operand = operand, .rows = 3, .cols = cols};
        c.stride = c.weight() ? cols : cols + 2;
        for (const std::vector<float>& x : Inputs(c.rows * c.stride)) {
          c.x = x;
          this->ExpectAsOnCpu(c);
          // One scale over a row with a NaN makes all of it NaN: once more without.
          std::replace_if(
              c.x.begin(), c.x.end(), [](float v) { return !std::isfinite(v); }, 1.5f);
          this->ExpectAsOnCpu(c);
          if (this->HasFatalFailure()) return;
        }
      }
    }
  }
}

REGISTER_TYPED_TEST_SUITE_P(QuantizeConformance, FormatsAreTheCpusBitForBit);

}  // namespace temper::numerics::cuda
