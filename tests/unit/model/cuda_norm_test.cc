// The body of the norm's CUDA kernel on the host, against the CPU's norm. Here, because that norm
// is the model's.

#include "tests/unit/numerics/cuda/emulated_device.h"
#include "tests/unit/numerics/cuda/norm_conformance.h"

namespace temper::numerics::cuda {

INSTANTIATE_TYPED_TEST_SUITE_P(Emulated, NormConformance, EmulatedDevice);

}  // namespace temper::numerics::cuda
