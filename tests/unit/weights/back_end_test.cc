#include "weights/back_end.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace temper::weights {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

TEST(BackEndTest, PullingNeedsNoneAndSharedMemoryIsAlwaysThere) {
  const auto grpc = MakeBackEnd("grpc");
  ASSERT_THAT(grpc, IsOk());
  EXPECT_EQ(*grpc, nullptr);
  const auto shared_memory = MakeBackEnd("shared_memory");
  ASSERT_THAT(shared_memory, IsOk());
  EXPECT_NE(*shared_memory, nullptr);
  EXPECT_FALSE(SpansHosts("shared_memory"));
  EXPECT_TRUE(SpansHosts("nccl"));
}

TEST(BackEndTest, NcclIsThereExactlyWhereItWasCompiled) {
#ifdef TEMPER_HAVE_NCCL
  EXPECT_THAT(CheckBroadcaster("nccl"), IsOk());
  const auto nccl = MakeBackEnd("nccl");
  ASSERT_THAT(nccl, IsOk());
  EXPECT_NE(*nccl, nullptr);
#else
  EXPECT_THAT(MakeBackEnd("nccl").status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("this build has no NCCL")));
#endif
}

TEST(BackEndTest, AnUnknownNameIsAMistake) {
  EXPECT_THAT(CheckBroadcaster("mpi"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("grpc, shared_memory, nccl")));
}

}  // namespace
}  // namespace temper::weights
