#include "tests/unit/numerics/cuda/cuda_device.h"

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
  for (void* memory : memory_) cudaFree(memory);
}

cudaStream_t CudaDevice::stream() {
  if (stream_ == nullptr) {
    TEMPER_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess,
                 "a device has streams");
  }
  return stream_;
}

void* CudaDevice::Allocate(size_t bytes) {
  void* memory = nullptr;
  TEMPER_CHECK(cudaMallocManaged(&memory, bytes + 1, cudaMemAttachGlobal) == cudaSuccess,
               "a test's memory fits the device");
  memory_.push_back(memory);
  TEMPER_CHECK(cudaMemset(memory, 0, bytes) == cudaSuccess, "memory can be zeroed");
  TEMPER_CHECK(cudaDeviceSynchronize() == cudaSuccess, "memory can be zeroed");
  return memory;
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
