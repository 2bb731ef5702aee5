#include "tests/unit/numerics/cuda/cuda_device.h"

#include <cstring>

#include "numerics/cuda/noise_kernels.h"
#include "services/base/check.h"
#include "services/base/text.h"

namespace temper::numerics::cuda {

std::string MissingCudaDevice() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return base::Cat("no CUDA device: ", cudaGetErrorString(error));
  return devices > 0 ? "" : "no CUDA device";
}

CudaDevice::~CudaDevice() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
  if (memory_ != nullptr) cudaFree(memory_);
}

cudaStream_t CudaDevice::stream() {
  if (stream_ == nullptr) {
    TEMPER_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess,
                 "a device has streams");
  }
  return stream_;
}

void* CudaDevice::Allocate(size_t bytes) {
  if (memory_ == nullptr) {
    void* memory = nullptr;
    TEMPER_CHECK(cudaMallocManaged(&memory, kBytes, cudaMemAttachGlobal) == cudaSuccess,
                 "a test's memory fits the device");
    memory_ = static_cast<std::byte*>(memory);
  }
  std::byte* const at = memory_ + used_;
  used_ += (bytes + 255) / 256 * 256;
  TEMPER_CHECK(used_ <= kBytes, "a test's memory is enough");
  std::memset(at, 0, bytes);
  return at;
}

absl::Status CudaDevice::Await(absl::Status started) {
  if (!started.ok()) return started;
  const cudaError_t error = cudaStreamSynchronize(stream());
  return error == cudaSuccess ? absl::OkStatus()
                              : absl::UnavailableError(cudaGetErrorString(error));
}

absl::Status CudaDevice::Error(const ErrorArguments& a) {
  return Await(ApplyErrorOnDevice(a, stream()));
}
absl::Status CudaDevice::Norm(const NormArguments& a) { return Await(NormOnDevice(a, stream())); }
absl::Status CudaDevice::Quantize(const QuantizeArguments& a) {
  return Await(QuantizeOnDevice(a, stream()));
}

}  // namespace temper::numerics::cuda
