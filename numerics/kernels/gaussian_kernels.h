#pragma once

// The inner loops of numerics/gaussian.cc, one set per instruction set. The three .cc files beside
// this header instantiate gaussian_body.h; they include nothing of the standard library but
// <cstdint>, because an inline function compiled for AVX-512 must not replace one that runs on any
// machine when the program is linked.

#include <cstdint>

#include "numerics/row_key.h"

namespace temper::numerics::kernels {

enum class Numbers : uint8_t {
  kExact,  // normals from 32-bit uniforms, four a counter
  kFast,   // normals from 16-bit uniforms, eight a counter
  kWords,  // the four Philox words of a counter themselves, in the bits of floats
};

// Numbers of some rows: counter words of row r are (first_counter + i, row[r].position, site,
// row[r].lane) under row[r].key.
struct GaussianArguments {
  float* out = nullptr;  // [rows, count], row r at out + r * stride
  int64_t stride = 0;
  int64_t rows = 0;
  int64_t count = 0;
  const RowKey* row = nullptr;
  uint32_t first_counter = 0;
  uint32_t site = 0;
  float scale = 1.0f;   // out = offset + scale * n as one fused multiply-add:
  float offset = 0.0f;  // 0 for the normals themselves, 1 for the factors of relative error
  Numbers numbers = Numbers::kExact;  // words are neither scaled nor offset
};

// What the error did to one row of at most a block. The sums are taken in 16 lanes (element i in
// lane i mod 16, ascending) and the lanes added by halves, so every instruction set adds in one
// order.
struct RowSums {
  double error = 0.0;
  double value = 0.0;
  int64_t changed = 0;
  int64_t non_finite = 0;
};

struct ApplyArguments {
  float* y = nullptr;  // [rows, count], multiplied in place
  int64_t stride = 0;
  const float* factors = nullptr;  // [rows, count]
  int64_t factor_stride = 0;
  int64_t rows = 0;
  int64_t count = 0;
  RowSums* sums = nullptr;  // one per row, overwritten; null: nothing is counted
};

using GaussianFn = void (*)(const GaussianArguments& g);
using ApplyFn = void (*)(const ApplyArguments& a);

void GaussianScalar(const GaussianArguments& g);
void GaussianAvx2(const GaussianArguments& g);
void GaussianAvx512(const GaussianArguments& g);
void ApplyScalar(const ApplyArguments& a);
void ApplyAvx2(const ApplyArguments& a);
void ApplyAvx512(const ApplyArguments& a);

}  // namespace temper::numerics::kernels
