#pragma once

// A device without one: runs every thread block of a launch on the host, thread by thread, the last
// block first, because no result may depend on the order.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "numerics/cuda/kernel_arguments.h"

namespace temper::numerics::cuda {

class EmulatedDevice final {
 public:
  static constexpr bool kKeepsNanBits = true;

  std::string Missing() const { return ""; }
  void* Allocate(size_t bytes);
  void FreeAll() { memory_.clear(); }
  absl::Status Error(const ErrorArguments& a);
  absl::Status Norm(const NormArguments& a);
  absl::Status Quantize(const QuantizeArguments& a);

 private:
  std::vector<std::unique_ptr<uint64_t[]>> memory_;
};

}  // namespace temper::numerics::cuda
