#include "services/base/exit_code.h"

#include <gtest/gtest.h>

namespace temper::base {
namespace {

TEST(ExitCodeTest, TellsUsageDataAndRuntimeApart) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("bad flag")), 2);
  EXPECT_EQ(ExitCode(absl::DataLossError("bad checksum")), 4);
  EXPECT_EQ(ExitCode(absl::UnavailableError("peer is gone")), 1);
  EXPECT_EQ(ExitCode(absl::ResourceExhaustedError("disk is full")), 1);
}

}  // namespace
}  // namespace temper::base
