#pragma once

// Single operations that a function uses which runs on the host and, compiled by nvcc, on the
// device. Each rounds once, to nearest, on both, whatever the compiler's flags: nvcc would contract
// a product and a sum into one rounding, and its library functions differ from the host's.
//
// Internal linkage: the files of numerics/kernels/ are compiled for different instruction sets.

#include <cstdint>

#ifdef __CUDACC__
#define TEMPER_HOST_DEVICE __host__ __device__
#else
#define TEMPER_HOST_DEVICE
#endif

namespace temper::numerics::kernels {
namespace {

#ifdef __CUDA_ARCH__
TEMPER_HOST_DEVICE inline float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
TEMPER_HOST_DEVICE inline float Mul(float a, float b) { return __fmul_rn(a, b); }
TEMPER_HOST_DEVICE inline float Add(float a, float b) { return __fadd_rn(a, b); }
TEMPER_HOST_DEVICE inline float Sub(float a, float b) { return __fsub_rn(a, b); }
TEMPER_HOST_DEVICE inline float Div(float a, float b) { return __fdiv_rn(a, b); }
TEMPER_HOST_DEVICE inline float Sqrt(float a) { return __fsqrt_rn(a); }
TEMPER_HOST_DEVICE inline float Trunc(float a) { return truncf(a); }
#else
TEMPER_HOST_DEVICE inline float Fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
TEMPER_HOST_DEVICE inline float Mul(float a, float b) { return a * b; }
TEMPER_HOST_DEVICE inline float Add(float a, float b) { return a + b; }
TEMPER_HOST_DEVICE inline float Sub(float a, float b) { return a - b; }
TEMPER_HOST_DEVICE inline float Div(float a, float b) { return a / b; }
TEMPER_HOST_DEVICE inline float Sqrt(float a) { return __builtin_sqrtf(a); }
TEMPER_HOST_DEVICE inline float Trunc(float a) { return __builtin_truncf(a); }
#endif

TEMPER_HOST_DEVICE inline uint32_t Bits(float v) { return __builtin_bit_cast(uint32_t, v); }
TEMPER_HOST_DEVICE inline float FromBits(uint32_t v) { return __builtin_bit_cast(float, v); }
TEMPER_HOST_DEVICE inline float Magnitude(float v) { return FromBits(Bits(v) & 0x7fffffffu); }
TEMPER_HOST_DEVICE inline float CopySign(float magnitude, float sign) {
  return FromBits((Bits(magnitude) & 0x7fffffffu) | (Bits(sign) & 0x80000000u));
}

}  // namespace
}  // namespace temper::numerics::kernels
