// The kernels: each is one body of numerics/cuda/*_block.h in its grid.

#include "numerics/cuda/error_block.h"
#include "numerics/cuda/kernel_launches.h"
#include "numerics/cuda/norm_block.h"
#include "numerics/cuda/quantize_block.h"

namespace temper::numerics::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) RowMaximumKernel(const ErrorArguments a) {
  __shared__ RowMaximum shared;
  RowMaximumBlock(a, blockIdx.x, &shared);
}

template <ErrorType type>
__global__ void __launch_bounds__(kThreads) ErrorKernel(const ErrorArguments a) {
  __shared__ TileCounts shared;
  ErrorBlock<type>(a, blockIdx.x, &shared);
}

__global__ void __launch_bounds__(kThreads) NormKernel(const NormArguments a) {
  __shared__ NormShared shared;
  NormBlock(a, blockIdx.x, &shared);
}

__global__ void __launch_bounds__(kThreads) TensorAmaxKernel(const QuantizeArguments a) {
  __shared__ RowMaximum shared;
  TensorAmaxBlock(a, blockIdx.x, &shared);
}

template <QuantizeFormat format, bool stochastic>
__global__ void __launch_bounds__(kThreads) QuantizeKernel(const QuantizeArguments a) {
  __shared__ QuantizeShared shared;
  QuantizeBlock<format, stochastic>(a, blockIdx.x, &shared);
}

template <ErrorType type>
void StartErrorKernel(const ErrorArguments& a, cudaStream_t stream) {
  if (ReadsRowMaximum(type)) {
    RowMaximumKernel<<<static_cast<unsigned>(a.rows), kThreads, 0, stream>>>(a);
  }
  const auto blocks = static_cast<unsigned>(a.rows * TilesOf(a.cols));
  ErrorKernel<type><<<blocks, kThreads, 0, stream>>>(a);
}

template <QuantizeFormat format>
void StartQuantizeKernel(const QuantizeArguments& a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(a.rows * BlocksPerRow(a));
  if (a.stochastic) {
    QuantizeKernel<format, true><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    QuantizeKernel<format, false><<<blocks, kThreads, 0, stream>>>(a);
  }
}

}  // namespace

cudaError_t StartError(const ErrorArguments& a, cudaStream_t stream) {
  switch (a.type) {
    case ErrorType::kRelativeGaussian:
      StartErrorKernel<ErrorType::kRelativeGaussian>(a, stream);
      break;
    case ErrorType::kAbsoluteGaussian:
      StartErrorKernel<ErrorType::kAbsoluteGaussian>(a, stream);
      break;
    case ErrorType::kSystematicBias:
      StartErrorKernel<ErrorType::kSystematicBias>(a, stream);
      break;
    case ErrorType::kTruncation:
      StartErrorKernel<ErrorType::kTruncation>(a, stream);
      break;
    case ErrorType::kDeadzone:
      StartErrorKernel<ErrorType::kDeadzone>(a, stream);
      break;
    case ErrorType::kSaturation:
      StartErrorKernel<ErrorType::kSaturation>(a, stream);
      break;
    case ErrorType::kSpike:
      StartErrorKernel<ErrorType::kSpike>(a, stream);
      break;
  }
  return cudaGetLastError();
}

cudaError_t StartNorm(const NormArguments& a, cudaStream_t stream) {
  NormKernel<<<static_cast<unsigned>(a.rows), kThreads, 0, stream>>>(a);
  return cudaGetLastError();
}

cudaError_t StartQuantize(const QuantizeArguments& a, cudaStream_t stream) {
  if (a.span == QuantizeSpan::kTensor) {
    const cudaError_t zeroed = cudaMemsetAsync(a.tensor_amax, 0, sizeof(TensorAmax), stream);
    if (zeroed != cudaSuccess) return zeroed;
    const auto blocks = static_cast<unsigned>(a.rows * TilesOf(a.cols));
    TensorAmaxKernel<<<blocks, kThreads, 0, stream>>>(a);
  }
  switch (a.format) {
    case QuantizeFormat::kMxfp4:
      StartQuantizeKernel<QuantizeFormat::kMxfp4>(a, stream);
      break;
    case QuantizeFormat::kNvfp4:
      StartQuantizeKernel<QuantizeFormat::kNvfp4>(a, stream);
      break;
    case QuantizeFormat::kFp8:
      StartQuantizeKernel<QuantizeFormat::kFp8>(a, stream);
      break;
  }
  return cudaGetLastError();
}

}  // namespace temper::numerics::cuda
