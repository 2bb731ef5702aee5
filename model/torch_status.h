#pragma once

// The one place where LibTorch's exceptions become a status; nothing above model/ sees one.

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model {

// Runs `body` and returns its status. An exception becomes ResourceExhausted (memory),
// InvalidArgument (a shape, type or value LibTorch refuses), Unimplemented, or Internal, with the
// first line of its message after `what`.
absl::Status RunTorch(const char* what, absl::FunctionRef<absl::Status()> body);

// The same for a body that returns StatusOr<T>.
template <typename T>
absl::StatusOr<T> RunTorchFor(const char* what, absl::FunctionRef<absl::StatusOr<T>()> body) {
  absl::StatusOr<T> result = absl::InternalError("not run");
  absl::Status status = RunTorch(what, [&]() -> absl::Status {
    result = body();
    return result.status();
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace temper::model
