// The reference path: any machine.

#include "numerics/kernels/error_body.h"

namespace temper::numerics::kernels {

void ErrorScalar(const ErrorArguments& e) { Error(e); }
void ReplaceScalar(const ReplaceArguments& r) { Replace(r); }
float LargestScalar(const float* x, int64_t count) { return Largest(x, count); }

}  // namespace temper::numerics::kernels
