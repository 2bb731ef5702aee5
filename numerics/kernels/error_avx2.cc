// Compiled for AVX2 and FMA; called only where they exist.

#include "numerics/kernels/error_body.h"

namespace temper::numerics::kernels {

void ErrorAvx2(const ErrorArguments& e) { Error(e); }
void ReplaceAvx2(const ReplaceArguments& r) { Replace(r); }
float LargestAvx2(const float* x, int64_t count) { return Largest(x, count); }

}  // namespace temper::numerics::kernels
