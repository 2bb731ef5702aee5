#pragma once

// Inputs of the format tests: keyed numbers and bit patterns, and Q of a matrix in one call.

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "numerics/formats/fake_quantize.h"
#include "tests/unit/numerics/simd_paths.h"

namespace temper::numerics {

// Normals times `sd`.
std::vector<float> Gaussians(int64_t count, float sd, uint64_t seed = 1);
// Student's t with 5 degrees of freedom times `scale`: a normal over the root of a mean of 5
// squares.
std::vector<float> StudentT5(int64_t count, float scale, uint64_t seed = 1);
// Any 32 bits: every exponent, denormals, infinities and NaN.
std::vector<float> BitPatterns(int64_t count, uint64_t seed = 1);
// Numbers of all magnitudes, but those of each run of `block` within twelve binades, so that few
// are negligible beside the largest; many with one or three fraction bits, which make grid points
// and ties; some zeros and infinities.
std::vector<float> Structured(int64_t count, int64_t block, uint64_t seed = 1);

FakeQuantizer Quantizer(const FormatSpec& spec, Operand operand = Operand::kWeight,
                        SimdPath path = BestSimdPath());

struct Quantized {
  std::vector<float> values;
  std::vector<float> scales;
};
// Q of a weight of rows x cols.
Quantized Quantize(const FakeQuantizer& quantizer, const std::vector<float>& x, int64_t cols,
                   uint64_t key = 0, uint32_t site = 0);

// Every legal spec, with nearest and stochastic rounding.
std::vector<FormatSpec> AllSpecs(Operand operand);
std::string Describe(const FormatSpec& spec);

}  // namespace temper::numerics
