#include "services/rpc/status.h"

#include <gtest/gtest.h>

#include <string>

namespace temper::rpc {
namespace {

TEST(StatusTest, EveryCodeSurvivesBothWays) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "group 3");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
}

TEST(StatusTest, ForeignCodeIsUnknown) {
  // No code, but a value that the enum's type can hold: others are undefined in gRPC's own header.
  const grpc::Status odd(static_cast<grpc::StatusCode>(20), "odd");
  EXPECT_EQ(FromGrpcStatus(odd).code(), absl::StatusCode::kUnknown);
}

TEST(StatusTest, LongMessageIsCut) {
  const absl::Status status = absl::InternalError(std::string(100'000, 'x'));
  EXPECT_EQ(ToGrpcStatus(status).error_message().size(), 4096u);
}

}  // namespace
}  // namespace temper::rpc
