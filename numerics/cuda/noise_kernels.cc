#include "numerics/cuda/noise_kernels.h"

#include <string_view>

#include "numerics/cuda/kernel_launches.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::numerics::cuda {
namespace {

absl::Status FromCuda(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(base::Cat(what, ": ", cudaGetErrorString(error)));
}

}  // namespace

absl::Status ApplyErrorOnDevice(const ErrorArguments& a, CUstream_st* stream) {
  TEMPER_RETURN_IF_ERROR(CheckError(a));
  return FromCuda(StartError(a, stream), "the error of an operator");
}

absl::Status NormOnDevice(const NormArguments& a, CUstream_st* stream) {
  TEMPER_RETURN_IF_ERROR(CheckNorm(a));
  return FromCuda(StartNorm(a, stream), "RMSNorm");
}

absl::Status QuantizeOnDevice(const QuantizeArguments& a, CUstream_st* stream) {
  TEMPER_RETURN_IF_ERROR(CheckQuantize(a));
  return FromCuda(StartQuantize(a, stream), "fake quantization");
}

}  // namespace temper::numerics::cuda
