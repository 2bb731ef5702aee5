#include "cli/restart_policy.h"

#include <gtest/gtest.h>

namespace temper::cli {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(RestartPolicyTest, RestartsAProcessThatWasKilledWithGrowingWaits) {
  const RestartDecision first =
      DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.signal = 9}, false, {}, kNow, {});
  EXPECT_EQ(first.action, RestartAction::kRestart);
  const RestartDecision second = DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.signal = 9}, false,
                                               {kNow - absl::Seconds(1)}, kNow, {});
  EXPECT_EQ(second.action, RestartAction::kRestart);
  EXPECT_GT(second.wait, first.wait);
}

TEST(RestartPolicyTest, GivesUpAfterTooManyRestartsWithinTheWindow) {
  const std::vector<absl::Time> restarts(5, kNow - absl::Seconds(10));
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 1}, false, restarts, kNow, {}).action,
            RestartAction::kGiveUp);
  const std::vector<absl::Time> long_ago(5, kNow - absl::Minutes(10));
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 1}, false, long_ago, kNow, {}).action,
            RestartAction::kRestart);
}

TEST(RestartPolicyTest, AWrongConfigurationIsNotRepairedByAnotherStart) {
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 2}, false, {}, kNow, {}).action,
            RestartAction::kGiveUp);
}

TEST(RestartPolicyTest, CorruptDataOnTheDiskIsNotRepairedByAnotherStart) {
  for (const v1::Role role : {v1::ROLE_LEARNER, v1::ROLE_ORCHESTRATOR}) {
    const RestartDecision decision = DecideRestart(role, {.code = 4}, false, {}, kNow, {});
    EXPECT_EQ(decision.action, RestartAction::kGiveUp) << v1::Role_Name(role);
    EXPECT_NE(decision.reason.find("exit code 4"), std::string::npos) << decision.reason;
    EXPECT_EQ(DecideRestart(role, {.signal = 4}, false, {}, kNow, {}).action,
              RestartAction::kRestart)
        << "a signal is no exit code";
  }
}

TEST(RestartPolicyTest, AWorkerWhoseWeightsCameDamagedPullsThemAgain) {
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 4}, false, {}, kNow, {}).action,
            RestartAction::kRestart);
  const std::vector<absl::Time> restarts(5, kNow - absl::Seconds(10));
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 4}, false, restarts, kNow, {}).action,
            RestartAction::kGiveUp);
}

TEST(RestartPolicyTest, LeavesAProcessAloneOnceTheRunIsOver) {
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.code = 0}, true, {}, kNow, {}).action,
            RestartAction::kLeave);
  EXPECT_EQ(DecideRestart(v1::ROLE_ROLLOUT_WORKER, {.signal = 15}, true, {}, kNow, {}).action,
            RestartAction::kLeave);
}

}  // namespace
}  // namespace temper::cli
