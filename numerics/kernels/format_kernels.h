#pragma once

// The inner loops of numerics/formats/fake_quantize.cc, one set per instruction set, all equal bit
// for bit. The vector files instantiate format_body.h and include nothing of the standard library
// but <cstdint> (gaussian_kernels.h says why); format_scalar.cc is the plain reference.
//
// Magnitudes of blocks are passed as the bits of |x|: as integers they are ordered like the values,
// and what is infinite or NaN is at least kInfinityBits.

#include <cstdint>

#include "numerics/row_key.h"

namespace temper::numerics::kernels {

inline constexpr int32_t kInfinityBits = 0x7f800000;
// The buffers of block magnitudes and scales are read and written in whole vectors.
inline constexpr int64_t kScalePadding = 16;

// amax[b] = largest bits of |x| in block b of `block` values, the last one shorter.
struct BlockAmaxArguments {
  const float* x = nullptr;
  int64_t count = 0;
  int64_t block = 0;
  int32_t* amax = nullptr;  // [ceil(count / block)]
};

// What an element of a block is divided and multiplied by. Blocks whose magnitude is not finite get
// a NaN, and so become NaN.
struct ScaleArguments {
  const int32_t* amax = nullptr;  // [blocks], padded
  int64_t blocks = 0;
  float tensor_scale = 0.0f;  // NVFP4: S
  float* scale = nullptr;     // [blocks], padded
  float* inverse = nullptr;   // MXFP4: the exact reciprocals, padded
};

// out = element(x / scale) * scale.
struct ApplyFormatArguments {
  const float* x = nullptr;
  float* out = nullptr;  // may be x
  int64_t count = 0;
  int64_t block = 0;
  const float* scale = nullptr;     // [ceil(count / block)]
  const float* inverse = nullptr;   // exact reciprocals of the scales, or null: divide
  const uint32_t* words = nullptr;  // stochastic rounding: one word per value; null: nearest even
  bool e4m3 = false;                // elements are E4M3FN, else E2M1
  bool stream = false;  // out is not x and not read soon: it may be written past the caches
};

// words of elements 4 * first_counter + 0 .. count - 1 of one row; count a multiple of 64.
struct WordsArguments {
  uint32_t* out = nullptr;
  int64_t count = 0;
  uint32_t first_counter = 0;
  uint32_t site = 0;
  RowKey row;
};
inline constexpr int64_t kWordsPadding = 64;

struct FormatKernels {
  void (*block_amax)(const BlockAmaxArguments& a) = nullptr;
  void (*mxfp4_scales)(const ScaleArguments& a) = nullptr;
  void (*nvfp4_scales)(const ScaleArguments& a) = nullptr;
  void (*fp8_scales)(const ScaleArguments& a) = nullptr;
  void (*apply)(const ApplyFormatArguments& a) = nullptr;
  void (*words)(const WordsArguments& a) = nullptr;
};

FormatKernels FormatKernelsScalar();
FormatKernels FormatKernelsAvx2();
FormatKernels FormatKernelsAvx512();

}  // namespace temper::numerics::kernels
