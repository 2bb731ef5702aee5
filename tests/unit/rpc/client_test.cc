#include "services/rpc/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "services/rpc/status.h"
#include "tests/support/fake_clock.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/reward_fake.h"

namespace temper::rpc {
namespace {

using ::temper::testing::FakeClock;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

grpc::Status Fails(absl::Status status) { return ToGrpcStatus(status); }

// Fails with Unavailable `failures` times, then succeeds; counts its runs.
struct Flaky {
  int failures;
  mutable int runs = 0;
  grpc::Status operator()(grpc::ClientContext*) const {
    return ++runs <= failures ? Fails(absl::UnavailableError("away")) : grpc::Status::OK;
  }
};

TEST(BackoffTest, GrowsToItsBoundWithinTheJitter) {
  const RetryPolicy policy = {.initial_backoff = absl::Milliseconds(100),
                              .max_backoff = absl::Milliseconds(400)};
  const absl::Duration full[] = {absl::Milliseconds(100), absl::Milliseconds(200),
                                 absl::Milliseconds(400), absl::Milliseconds(400)};
  for (int attempt = 2; attempt <= 5; ++attempt) {
    const absl::Duration wait = BackoffBefore(policy, attempt, "Score", 7);
    EXPECT_GE(wait, full[attempt - 2] / 2);
    EXPECT_LT(wait, full[attempt - 2]);
  }
  EXPECT_LE(BackoffBefore(policy, 10'000, "Score", 7), absl::Milliseconds(400));
}

TEST(BackoffTest, JitterIsAFunctionOfItsKey) {
  const RetryPolicy policy;
  EXPECT_EQ(BackoffBefore(policy, 2, "Score", 1), BackoffBefore(policy, 2, "Score", 1));
  EXPECT_NE(BackoffBefore(policy, 2, "Score", 1), BackoffBefore(policy, 2, "Score", 2));
}

TEST(CallWithRetriesTest, RetriesUnavailableUntilItSucceedsAndCounts) {
  metrics::MetricsRegistry registry;
  RpcMetrics metrics(&registry);
  Flaky flaky{.failures = 2};
  EXPECT_THAT(
      CallWithRetries({.method = "Score",
                       .retry = {.max_attempts = 3, .initial_backoff = absl::Microseconds(10)},
                       .metrics = &metrics},
                      flaky),
      IsOk());
  EXPECT_EQ(flaky.runs, 3);
  EXPECT_THAT(registry.Serialize(),
              HasSubstr("temper_rpc_client_retries_total{method=\"Score\"} 2\n"));
  EXPECT_THAT(
      registry.Serialize(),
      HasSubstr("temper_rpc_client_seconds_count{code=\"UNAVAILABLE\",method=\"Score\"} 2\n"));
}

TEST(CallWithRetriesTest, GivesUpAfterItsLastAttemptAndNamesTheMethod) {
  Flaky flaky{.failures = 100};
  EXPECT_THAT(
      CallWithRetries({.method = "Score",
                       .retry = {.max_attempts = 3, .initial_backoff = absl::Microseconds(10)}},
                      flaky),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Score: away")));
  EXPECT_EQ(flaky.runs, 3);
}

TEST(CallWithRetriesTest, OtherCodesAreNotTriedAgain) {
  for (auto code : {absl::StatusCode::kAborted, absl::StatusCode::kDeadlineExceeded,
                    absl::StatusCode::kInvalidArgument}) {
    int runs = 0;
    const auto attempt = [&](grpc::ClientContext*) {
      ++runs;
      return Fails(absl::Status(code, "no"));
    };
    EXPECT_THAT(CallWithRetries({.method = "Score", .retry = {.max_attempts = 5}}, attempt),
                StatusIs(code));
    EXPECT_EQ(runs, 1);
  }
}

TEST(CallWithRetriesTest, DoesNotWaitPastTheDeadlineOfTheWhole) {
  FakeClock clock;
  Flaky flaky{.failures = 100};
  EXPECT_THAT(CallWithRetries({.method = "Score",
                               .deadline = clock.Now() + absl::Milliseconds(10),
                               .retry = {.max_attempts = 100, .initial_backoff = absl::Seconds(1)},
                               .clock = &clock},
                              flaky),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(flaky.runs, 1);
}

TEST(CallWithRetriesTest, StopEndsTheWaitBetweenAttempts) {
  FakeClock clock;
  base::StopToken stop;
  Flaky flaky{.failures = 100};
  absl::Status status;
  std::thread caller([&] {
    status = CallWithRetries({.method = "Score",
                              .retry = {.max_attempts = 100,
                                        .initial_backoff = absl::Hours(1),
                                        .max_backoff = absl::Hours(1)},
                              .stop = &stop,
                              .clock = &clock},
                             flaky);
  });
  clock.AwaitWaiters(1);
  stop.RequestStop();
  caller.join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(flaky.runs, 1);
}

TEST(CallWithRetriesTest, StoppedBeforeItBeginsCallsNobody) {
  base::StopToken stop;
  stop.RequestStop();
  Flaky flaky{.failures = 0};
  EXPECT_THAT(CallWithRetries({.method = "Score", .stop = &stop}, flaky),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(flaky.runs, 0);
}

TEST(CallUnaryTest, StopCancelsTheCallInFlight) {
  absl::Notification arrived;
  std::shared_ptr<DeferredReply> pending;
  RewardHost host([&](auto*, auto*, auto*) {
    pending = DeferredReply::Create(nullptr, "Score");
    arrived.Notify();
    return pending->reactor();
  });
  base::StopToken stop;
  absl::Status status;
  std::thread caller([&] { status = host.Call({.timeout = absl::Seconds(60), .stop = &stop}); });
  arrived.WaitForNotification();
  stop.RequestStop();
  caller.join();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled));
}

TEST(CallUnaryTest, TimeoutIsDeadlineExceeded) {
  std::shared_ptr<DeferredReply> pending;
  RewardHost host([&](auto*, auto*, auto*) {
    pending = DeferredReply::Create(nullptr, "Score");
    return pending->reactor();
  });
  EXPECT_THAT(host.Call({.timeout = absl::Milliseconds(50)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("Score")));
}

TEST(CallUnaryTest, NobodyListeningIsUnavailable) {
  RewardHost host([](auto*, auto*, auto*) { return nullptr; });
  host.server->Shutdown(absl::ZeroDuration());
  EXPECT_THAT(host.Call({.timeout = absl::Seconds(20)}), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(CallUnaryTest, PeerThatComesBackOnItsPortIsReachedAgain) {
  const auto handler = [](grpc::CallbackServerContext* context, auto*, auto*) {
    return Reply(context, nullptr, "Score", [] { return absl::OkStatus(); });
  };
  RewardHost host(handler);
  ASSERT_THAT(host.Call({}), IsOk());
  const std::string address = host.server->address();
  host.server.reset();
  ASSERT_THAT(host.Call({}), StatusIs(absl::StatusCode::kUnavailable));
  RewardHost restarted(handler, {.listen_address = address});
  EXPECT_THAT(host.Call({.retry = {.max_attempts = 50}}), IsOk());
}

TEST(MakeChannelTest, RefusesWhatIsNoAddress) {
  for (const char* address : {"", "nowhere", "127.0.0.1:0", "127.0.0.1:http"}) {
    EXPECT_THAT(MakeChannel(address), StatusIs(absl::StatusCode::kInvalidArgument)) << address;
  }
}

}  // namespace
}  // namespace temper::rpc
