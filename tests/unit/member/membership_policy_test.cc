#include "services/member/membership_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace temper::member {
namespace {

using temper::testing::IsOk;
using temper::testing::StatusIs;
using ::testing::HasSubstr;

constexpr absl::Duration kLimit = absl::Minutes(10);

HeartbeatDecision Failure(const absl::Status& status, bool joining = false,
                          absl::Duration silence = absl::Seconds(1)) {
  return DecideAfterFailure(status, joining, silence, kLimit);
}

TEST(MembershipPolicyTest, AStrangerJoinsAgain) {
  EXPECT_EQ(Failure(absl::NotFoundError("who?")).action, AfterHeartbeat::kRejoin);
}

TEST(MembershipPolicyTest, AJoinThatFindsNobodyEndsTheMembership) {
  const HeartbeatDecision decision = Failure(absl::NotFoundError("no run"), /*joining=*/true);
  EXPECT_EQ(decision.action, AfterHeartbeat::kLeave);
  EXPECT_THAT(decision.end, StatusIs(absl::StatusCode::kNotFound));
}

TEST(MembershipPolicyTest, ARefusalByNumberIsFinal) {
  for (const auto code : {absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInvalidArgument,
                          absl::StatusCode::kAborted, absl::StatusCode::kPermissionDenied}) {
    const HeartbeatDecision decision = Failure(absl::Status(code, "run B"));
    EXPECT_EQ(decision.action, AfterHeartbeat::kLeave);
    EXPECT_THAT(decision.end, StatusIs(code));
  }
}

TEST(MembershipPolicyTest, SilenceIsBorneUpToItsLimit) {
  for (const auto code : {absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded,
                          absl::StatusCode::kInternal, absl::StatusCode::kResourceExhausted}) {
    EXPECT_EQ(Failure(absl::Status(code, "x"), false, kLimit).action, AfterHeartbeat::kStay);
    const HeartbeatDecision late =
        Failure(absl::Status(code, "x"), false, kLimit + absl::Seconds(1));
    EXPECT_EQ(late.action, AfterHeartbeat::kLeave);
    EXPECT_THAT(late.end, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("10m1s")));
  }
}

TEST(MembershipPolicyTest, TheEndOfTheRunAndADrainAreOrdinaryEnds) {
  v1::HeartbeatReply reply;
  reply.set_state(v1::RUN_STATE_TRAINING);
  EXPECT_EQ(DecideAfterReply(reply).action, AfterHeartbeat::kStay);
  reply.set_drain(true);
  EXPECT_EQ(DecideAfterReply(reply).action, AfterHeartbeat::kLeave);
  EXPECT_THAT(DecideAfterReply(reply).end, IsOk());
  reply.set_drain(false);
  reply.set_state_reason("group 7 failed five times");
  for (const auto state : {v1::RUN_STATE_FINISHED, v1::RUN_STATE_STOPPED, v1::RUN_STATE_FAILED}) {
    reply.set_state(state);
    const HeartbeatDecision decision = DecideAfterReply(reply);
    EXPECT_EQ(decision.action, AfterHeartbeat::kLeave);
    EXPECT_THAT(decision.end, IsOk());
    EXPECT_THAT(decision.reason, HasSubstr("group 7"));
  }
}

}  // namespace
}  // namespace temper::member
