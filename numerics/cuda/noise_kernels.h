#pragma once

// The noise of numerics/ as CUDA kernels: errors of operators, RMSNorm with AQN inside it, fake
// quantization; float32, the same bits as the CPU's kernels. docs/cuda.md says what of that was
// shown and where.
//
// Each call checks its arguments, starts its kernels on `stream` and returns at once; what the
// kernels read and write must live until the stream has passed them. Calls may be captured into a
// CUDA graph. What must change between replays (row keys, strength, draws of AQN) is read from
// device memory by the kernels themselves: rewrite it there, on the same stream, and replay.
//
// Errors: InvalidArgument and ResourceExhausted as launch_checks.h says; Unavailable, with CUDA's
// words, where the device does not take the launch. A kernel's own failure appears at the next
// synchronising call of the caller. Thread-safe, for the calling thread's current device.

#include "absl/status/status.h"
#include "numerics/cuda/launch_checks.h"

struct CUstream_st;  // *cudaStream_t

namespace temper::numerics::cuda {

// ApplyError of numerics/operator_error.h. Of a whole weight: relative_gaussian, absolute_gaussian,
// the bias and truncation, as one row with position = lane = 0; the types that read a row's
// maximum have no form for it here.
absl::Status ApplyErrorOnDevice(const ErrorArguments& a, CUstream_st* stream);

// The CPU's RMSNorm under ApplyAqn of numerics/aqn.h; the perturbed weight is never stored. The
// norm is not counted here: ApplyAqn on the host makes report and checksum of each draw.
absl::Status NormOnDevice(const NormArguments& a, CUstream_st* stream);

// FakeQuantizer::QuantizeRows and QuantizeWeight, without block_2d. a: MakeQuantizeArguments and
// the matrix. With a scale over the tensor, tensor_amax is zeroed and filled first.
absl::Status QuantizeOnDevice(const QuantizeArguments& a, CUstream_st* stream);

}  // namespace temper::numerics::cuda
