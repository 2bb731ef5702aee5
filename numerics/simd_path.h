#pragma once

// Which instructions a kernel uses. Every path of a kernel gives the same bits; a path is an
// argument, so that tests force each of them and nothing global decides.

#include <string_view>

namespace temper::numerics {

enum class SimdPath {
  kScalar,  // any machine; fused multiply-add through std::fma
  kAvx2,    // AVX2 and FMA
  kAvx512,  // AVX-512 F, DQ and VL
};

// The widest path this machine can run. Pure but for asking the CPU; thread-safe.
SimdPath BestSimdPath();

// True if this machine can run `path`.
bool SimdPathSupported(SimdPath path);

// "scalar", "avx2", "avx512".
std::string_view SimdPathName(SimdPath path);

}  // namespace temper::numerics
