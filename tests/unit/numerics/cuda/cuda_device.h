#pragma once

// The machine's first CUDA device, for tests: a stream, and memory that host and device both see.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "numerics/cuda/kernel_arguments.h"

namespace temper::numerics::cuda {

// What CUDA lacks here, in its words; empty: there is a device.
std::string MissingCudaDevice();

class CudaDevice final {
 public:
  static constexpr bool kKeepsNanBits = false;  // a device's arithmetic has one NaN

  CudaDevice() = default;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice();

  std::string Missing() const { return MissingCudaDevice(); }
  void* Allocate(size_t bytes);
  void FreeAll() { used_ = 0; }
  // Run and wait.
  absl::Status Error(const ErrorArguments& a);
  absl::Status Norm(const NormArguments& a);
  absl::Status Quantize(const QuantizeArguments& a);

  // Made with the first use.
  cudaStream_t stream();

 private:
  absl::Status Await(absl::Status started);

  static constexpr size_t kBytes = size_t{128} << 20;

  cudaStream_t stream_ = nullptr;
  std::byte* memory_ = nullptr;  // kBytes, with the first use
  size_t used_ = 0;
};

}  // namespace temper::numerics::cuda
