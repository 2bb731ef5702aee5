// The kernels' bodies on the host, every thread of every block, against the CPU's kernels.

#include "tests/unit/numerics/cuda/emulated_device.h"
#include "tests/unit/numerics/cuda/noise_conformance.h"
#include "tests/unit/numerics/cuda/quantize_conformance.h"

namespace temper::numerics::cuda {

INSTANTIATE_TYPED_TEST_SUITE_P(Emulated, NoiseConformance, EmulatedDevice);
INSTANTIATE_TYPED_TEST_SUITE_P(Emulated, QuantizeConformance, EmulatedDevice);

}  // namespace temper::numerics::cuda
