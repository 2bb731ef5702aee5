#pragma once

// What surrounds the kernels and needs no device: their arguments checked and made from the CPU's
// types, their counts read. Pure and thread-safe. Float32 only; a pointer's memory is the caller's
// matter, only null is seen here.

#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "numerics/cuda/kernel_arguments.h"
#include "numerics/error_stats.h"
#include "numerics/formats/number_format.h"
#include "numerics/operator_error.h"

namespace temper::numerics::cuda {

// The parameters of an error, to be copied to device memory. InvalidArgument as CheckStrength says;
// Unimplemented for fast draws, which no kernel makes.
// Type and `relative` are fixed when a kernel is launched, and so not among them.
absl::StatusOr<ErrorParameters> MakeErrorParameters(const OperatorError& error);

// Format, span and rounding of Q; matrix and keys are left to the caller. InvalidArgument as
// CheckFormat says; Unimplemented for block_2d.
absl::StatusOr<QuantizeArguments> MakeQuantizeArguments(const FormatSpec& spec, Operand operand);

// InvalidArgument, with the field, for a matrix without rows or columns, a stride below the number
// of columns of more than one row, two strides of a matrix in place, a null pointer that the kernel
// would follow, elements beyond the 34 bits of the counter. ResourceExhausted for more blocks than
// one launch can have.
absl::Status CheckError(const ErrorArguments& a);
absl::Status CheckNorm(const NormArguments& a);
absl::Status CheckQuantize(const QuantizeArguments& a);

// Counts of rows that were always perturbed together, as one group's rows are: one injection for
// all of them. Equals what the CPU counts for the same calls.
ErrorStats CountsOfRows(std::span<const RowCounts> rows);

}  // namespace temper::numerics::cuda
