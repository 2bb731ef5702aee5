#pragma once

// absl::Status <-> grpc::Status. The codes are the same numbers by definition; messages pass
// unchanged, cut at 4 KiB (gRPC carries them in a header).

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace temper::rpc {

grpc::Status ToGrpcStatus(const absl::Status& status);

// A code gRPC does not define becomes Unknown.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace temper::rpc
