#pragma once

// `hw_error_injection` in a linear: the operands a product reads, what they count, and the error of
// its result. Both engines call these where they multiply; where a row has no injection nothing is
// done and nothing counted. No LibTorch here.
//
// Counts are per row (one token), so that they do not depend on how rows were batched or cut
// between threads. A perturbed weight counts all its elements for every row it is multiplied with.

#include <cstdint>
#include <span>
#include <vector>

#include "model/noise_context.h"
#include "numerics/gemm.h"
#include "numerics/injection_policy.h"
#include "numerics/row_key.h"

namespace temper::model {

// What an error did to a weight; nothing (elements 0) where it is clean. The sums are rounded to
// float, so that a count of rows times a sum is exact however the rows were cut.
struct WeightPerturbation {
  uint64_t elements = 0;
  uint64_t changed = 0;
  uint64_t non_finite = 0;
  float sum_sq_error = 0.0f;
  float sum_sq_value = 0.0f;
};

// W^ = E(W), with what that did. error: acts. w: [out_features, in_features]; key, site: of the
// draw (InjectionPolicy::WeightKey; kWeightOperand).
// Errors: ResourceExhausted as TensorError::PerturbWeight.
absl::StatusOr<WeightPerturbation> PerturbWeight(const numerics::TensorError& error, const float* w,
                                                 int64_t out_features, int64_t in_features,
                                                 uint64_t key, uint32_t site,
                                                 std::vector<float>* perturbed);

// Where in a pass a product is made: rows first_row .. first_row + rows - 1 of `noise`, whose
// injection_keys name the draws.
struct ProductRows {
  const RowNoise& noise;
  numerics::Direction direction = numerics::Direction::kForward;
  numerics::Operator op = numerics::Operator::kQ;
  int layer = numerics::kNoLayer;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// The rows of x, [rows, cols] contiguous, as the product reads them: x itself, or x^ in `buffer`
// ([rows, cols], not read where x does not err).
const float* InputOperand(const float* x, int64_t cols, const ProductRows& product, float* buffer);

// Counts the use of a perturbed weight by each row.
void CountWeight(const ProductRows& product, const WeightPerturbation& perturbation);

// E of the result in place: y [rows, cols], row stride in floats. scratch: [cols].
void InjectOutput(float* y, int64_t cols, int64_t row_stride, const ProductRows& product,
                  float* scratch);

}  // namespace temper::model
