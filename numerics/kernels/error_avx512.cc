// Compiled for AVX-512 F, DQ and VL; called only there.

#include "numerics/kernels/error_body.h"

namespace temper::numerics::kernels {

void ErrorAvx512(const ErrorArguments& e) { Error(e); }
void ReplaceAvx512(const ReplaceArguments& r) { Replace(r); }
float LargestAvx512(const float* x, int64_t count) { return Largest(x, count); }

}  // namespace temper::numerics::kernels
