#include "services/rpc/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/reward_fake.h"

namespace temper::rpc {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ReplyTest, AnswersAndRecordsItsLatency) {
  metrics::MetricsRegistry registry;
  RpcMetrics metrics(&registry);
  RewardHost host([&](auto* context, const v1::ScoreRequest* request, v1::ScoreReply* reply) {
    return Reply(context, &metrics, "Score", [&] {
      if (request->rule().empty()) return absl::InvalidArgumentError("no rule");
      reply->add_scores()->set_reward(0.5);
      return absl::OkStatus();
    });
  });
  EXPECT_THAT(host.Call({}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no rule")));
  host.request.set_rule("strict");
  ASSERT_THAT(host.Call({}), IsOk());
  EXPECT_EQ(host.reply.scores(0).reward(), 0.5);
  const std::string text = registry.Serialize();
  EXPECT_THAT(text, HasSubstr("temper_rpc_server_seconds_count{code=\"OK\",method=\"Score\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_count{code=\"INVALID_ARGUMENT\",method=\"Score\"} 1\n"));
}

TEST(ReplyTest, HandlerSeesTheCallersDeadline) {
  absl::Time seen;
  RewardHost host([&](grpc::CallbackServerContext* context, auto*, auto*) {
    seen = DeadlineOf(*context);
    return Reply(context, nullptr, "Score", [] { return absl::OkStatus(); });
  });
  const absl::Time start = absl::Now();
  ASSERT_THAT(host.Call({.timeout = absl::Seconds(40)}), IsOk());
  EXPECT_GT(seen, start + absl::Seconds(30));
  EXPECT_LT(seen, absl::Now() + absl::Seconds(41));
}

TEST(DeferredReplyTest, AnswersLaterFromAnotherThread) {
  std::shared_ptr<DeferredReply> pending;
  v1::ScoreReply* response = nullptr;
  absl::Notification arrived;
  RewardHost host([&](auto*, auto*, v1::ScoreReply* reply) {
    pending = DeferredReply::Create(nullptr, "Score");
    response = reply;
    arrived.Notify();
    return pending->reactor();
  });
  std::thread answerer([&] {
    arrived.WaitForNotification();
    const auto fill = [&] {
      response->add_scores()->set_reward(0.25);
      return absl::OkStatus();
    };
    EXPECT_TRUE(pending->Finish(fill));
    EXPECT_FALSE(pending->Finish(fill));
  });
  ASSERT_THAT(host.Call({}), IsOk());
  answerer.join();
  EXPECT_EQ(host.reply.scores_size(), 1);
  EXPECT_TRUE(pending->finished());
}

TEST(DeferredReplyTest, AnswerBeforeTheHandlerReturnsIsFine) {
  RewardHost host([&](auto*, auto*, auto*) {
    auto pending = DeferredReply::Create(nullptr, "Score");
    pending->Finish([] { return absl::NotFoundError("at once"); });
    return pending->reactor();
  });
  EXPECT_THAT(host.Call({}), StatusIs(absl::StatusCode::kNotFound));
}

TEST(DeferredReplyTest, CallerThatGivesUpIsNoticedAndLateAnswersDoNothing) {
  std::shared_ptr<DeferredReply> pending;
  absl::Notification cancelled;
  RewardHost host([&](auto*, auto*, auto*) {
    pending = DeferredReply::Create(nullptr, "Score", [&] { cancelled.Notify(); });
    return pending->reactor();
  });
  EXPECT_THAT(host.Call({.timeout = absl::Milliseconds(50)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  ASSERT_TRUE(cancelled.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_FALSE(pending->Finish([]() -> absl::Status { std::abort(); }));
}

TEST(DeferredReplyTest, DroppedUnansweredIsUnavailable) {
  RewardHost host([&](auto*, auto*, auto*) {
    auto pending = DeferredReply::Create(nullptr, "Score");
    return pending->reactor();  // and the last pointer goes
  });
  EXPECT_THAT(host.Call({}), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("unanswered")));
}

TEST(DeferredReplyTest, AnswersAndCancellationsMayRace) {
  constexpr int kCalls = 200;
  std::atomic<int> ended = 0;
  std::vector<std::thread> answerers(kCalls);
  std::atomic<int> next = 0;
  RewardHost host([&](auto*, auto*, v1::ScoreReply* reply) {
    auto pending = DeferredReply::Create(nullptr, "Score", [&] { ++ended; });
    answerers[next++] = std::thread([&ended, pending, reply] {
      ended += pending->Finish([&] {
        reply->add_scores();
        return absl::OkStatus();
      });
    });
    return pending->reactor();
  });
  for (int i = 0; i < kCalls; ++i) (void)host.Call({.timeout = absl::Microseconds(300 + 5 * i)});
  host.server->Shutdown(absl::Seconds(20));
  for (int i = 0; i < next; ++i) answerers[i].join();
  EXPECT_EQ(ended, next);
}

}  // namespace
}  // namespace temper::rpc
