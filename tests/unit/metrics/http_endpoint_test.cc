#include "services/metrics/http_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "services/base/text.h"
#include "tests/support/http_get.h"
#include "tests/support/status_matchers.h"

namespace temper::metrics {
namespace {

using ::temper::testing::HttpGet;
using ::temper::testing::HttpRequest;
using ::temper::testing::StatusIs;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(HttpEndpointTest, ServesMetricsOnAPortOfItsOwn) {
  MetricsRegistry registry;
  registry.AddGauge("temper_test_step", "Step.").Set(7);
  auto endpoint = HttpEndpoint::Create({.registry = &registry}).value();
  EXPECT_GT(endpoint->port(), 0);
  EXPECT_EQ(endpoint->address(), base::Cat("127.0.0.1:", endpoint->port()));
  const std::string answer = HttpGet(endpoint->port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(answer, HasSubstr("\ntemper_test_step 7\n"));
}

TEST(HttpEndpointTest, HealthFollowsTheRole) {
  std::atomic<bool> healthy = true;
  auto endpoint = HttpEndpoint::Create({.healthy = [&] { return healthy.load(); }}).value();
  EXPECT_THAT(HttpGet(endpoint->port(), "/healthz"), StartsWith("HTTP/1.1 200 "));
  healthy = false;
  EXPECT_THAT(HttpGet(endpoint->port(), "/healthz"), StartsWith("HTTP/1.1 503 "));
}

TEST(HttpEndpointTest, ServesWhatARoleAddsAndNothingElse) {
  auto endpoint =
      HttpEndpoint::Create({.handlers = {{"/sd",
                                          [] {
                                            return HttpResponse{.content_type = "application/json",
                                                                .body = "[]"};
                                          }}}})
          .value();
  EXPECT_THAT(HttpGet(endpoint->port(), "/sd"), EndsWith("\r\n\r\n[]"));
  EXPECT_THAT(HttpGet(endpoint->port(), "/sd"), HasSubstr("Content-Type: application/json"));
  for (const char* path : {"/", "/sd/", "/metricsx", "/../etc/passwd", "/%2e%2e/etc/passwd"}) {
    EXPECT_THAT(HttpGet(endpoint->port(), path), StartsWith("HTTP/1.1 40")) << path;
  }
}

TEST(HttpEndpointTest, OnlyReads) {
  MetricsRegistry registry;
  auto endpoint = HttpEndpoint::Create({.registry = &registry}).value();
  EXPECT_THAT(HttpRequest(endpoint->port(), "POST", "/metrics"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(HttpRequest(endpoint->port(), "DELETE", "/healthz"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(HttpRequest(endpoint->port(), "HEAD", "/healthz"), EndsWith("\r\n\r\n"));
}

TEST(HttpEndpointTest, PortInUseIsAClearError) {
  auto first = HttpEndpoint::Create({}).value();
  EXPECT_THAT(
      HttpEndpoint::Create({.port = first->port()}),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr(base::Cat("127.0.0.1:", first->port()))));
}

TEST(HttpEndpointTest, OffLoopbackMustBeSaidAloud) {
  EXPECT_THAT(HttpEndpoint::Create({.host = "0.0.0.0"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--insecure-network")));
  EXPECT_TRUE(HttpEndpoint::Create({.host = "0.0.0.0", .insecure_network = true}).ok());
}

TEST(HttpEndpointTest, RefusesHostsAndPortsThatAreNone) {
  EXPECT_THAT(HttpEndpoint::Create({.port = 70'000}), StatusIs(absl::StatusCode::kInvalidArgument));
  for (const char* host : {"", "8080,0.0.0.0", "example.org"}) {
    EXPECT_THAT(HttpEndpoint::Create({.host = host, .insecure_network = true}),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << host;
  }
}

}  // namespace
}  // namespace temper::metrics
