#pragma once

// Between noise_kernels.cc, which returns statuses, and noise_kernels.cu, which nvcc compiles and
// which sees neither Abseil nor anything else of the project but the kernels' bodies. Arguments
// were checked. Asynchronous on `stream`, and may be captured.

#include <cuda_runtime_api.h>

#include "numerics/cuda/kernel_arguments.h"

namespace temper::numerics::cuda {

cudaError_t StartError(const ErrorArguments& a, cudaStream_t stream);
cudaError_t StartNorm(const NormArguments& a, cudaStream_t stream);
cudaError_t StartQuantize(const QuantizeArguments& a, cudaStream_t stream);

}  // namespace temper::numerics::cuda
