#pragma once

// The adapter's part of a linear as both engines compute it: one order, so that sampler and learner
// have the same bits. No LibTorch here.
//
//   t = e_a(x A^T),  u = e_b(t B^T),  y += fl(fl(alpha / r) u)
//
// t and u are the products of numerics/gemm.h; e_a and e_b are the errors of the operators lora_a
// and lora_b, none unless they are named. It comes after the base product with its error and bias.

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "model/kernels/row_kernels.h"
#include "numerics/gemm.h"
#include "numerics/site.h"

namespace temper::model {

// Rows of one call. t: [rows, rank], u: [rows, out], both overwritten. x and y have their strides.
struct AdapterRows {
  const numerics::PackedMatrix* a = nullptr;  // [rank, in]
  const numerics::PackedMatrix* b = nullptr;  // [out, rank]
  float scale = 1.0f;                         // alpha / r
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  float* t = nullptr;
  float* u = nullptr;
  float* y = nullptr;  // added to
  int64_t y_stride = 0;
};

// error(values, cols, op): perturbs (or only counts) the product of lora_a or lora_b, [rows, cols].
void AddAdapterBranch(const AdapterRows& call, const kernels::RowKernels& kernels,
                      absl::FunctionRef<void(float*, int64_t, numerics::Operator)> error);

}  // namespace temper::model
