#include "cli/restart_policy.h"

#include <gtest/gtest.h>

namespace temper::cli {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(RestartPolicyTest, RestartsAProcessThatWasKilledWithGrowingWaits) {
  const RestartDecision first = DecideRestart({.signal = 9}, false, {}, kNow, {});
  EXPECT_EQ(first.action, RestartAction::kRestart);
  const RestartDecision second =
      DecideRestart({.signal = 9}, false, {kNow - absl::Seconds(1)}, kNow, {});
  EXPECT_EQ(second.action, RestartAction::kRestart);
  EXPECT_GT(second.wait, first.wait);
}

TEST(RestartPolicyTest, GivesUpAfterTooManyRestartsWithinTheWindow) {
  const std::vector<absl::Time> restarts(5, kNow - absl::Seconds(10));
  EXPECT_EQ(DecideRestart({.code = 1}, false, restarts, kNow, {}).action, RestartAction::kGiveUp);
  const std::vector<absl::Time> long_ago(5, kNow - absl::Minutes(10));
  EXPECT_EQ(DecideRestart({.code = 1}, false, long_ago, kNow, {}).action, RestartAction::kRestart);
}

TEST(RestartPolicyTest, AWrongConfigurationIsNotRepairedByAnotherStart) {
  EXPECT_EQ(DecideRestart({.code = 2}, false, {}, kNow, {}).action, RestartAction::kGiveUp);
}

TEST(RestartPolicyTest, LeavesAProcessAloneOnceTheRunIsOver) {
  EXPECT_EQ(DecideRestart({.code = 0}, true, {}, kNow, {}).action, RestartAction::kLeave);
  EXPECT_EQ(DecideRestart({.signal = 15}, true, {}, kNow, {}).action, RestartAction::kLeave);
}

}  // namespace
}  // namespace temper::cli
