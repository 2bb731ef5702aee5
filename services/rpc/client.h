#pragma once

// Channels, and unary calls with deadlines and retries.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "services/base/clock.h"
#include "services/base/stop_token.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/server.h"
#include "services/rpc/tls.h"

namespace temper::rpc {

// A channel to "host:port"; connects on first use, and again after a loss (back-off 100 ms to 2 s),
// pings when idle for 20 s, never asks a proxy. Thread-safe; share one per peer.
// Returns: InvalidArgument for a malformed address or TLS files that cannot be used.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    std::string_view address, const TlsOptions& tls = {},
    int max_message_bytes = kDefaultMaxMessageBytes);

// How often Unavailable is tried again. Before attempt k (from 2) it waits
// min(initial_backoff * multiplier^(k-2), max_backoff), scaled by a keyed factor in [0.5, 1).
struct RetryPolicy {
  int max_attempts = 1;
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(2);
  double multiplier = 2.0;
};

// The wait before attempt `attempt` (2, 3, ...). Pure: equal arguments give equal waits.
absl::Duration BackoffBefore(const RetryPolicy& policy, int attempt, std::string_view method,
                             uint64_t jitter_key);

struct CallOptions {
  std::string_view method;                       // its name, for metrics and messages; needed
  absl::Duration timeout = absl::Seconds(10);    // of each attempt; finite
  absl::Time deadline = absl::InfiniteFuture();  // of all attempts and waits together
  RetryPolicy retry;                             // default: one attempt
  uint64_t jitter_key = 0;                       // tells callers apart, e.g. hash of worker id
  // An attempt waits for the connection up to its timeout instead of failing at once. gRPC drives a
  // connection only while some call waits; where all fail at once, it may take 5 s to come back.
  bool wait_for_ready = false;
  base::StopToken* stop = nullptr;           // raised: the call in flight is cancelled
  base::Clock* clock = base::SystemClock();  // for waits and latencies
  RpcMetrics* metrics = nullptr;
};

// Runs `attempt` until it succeeds, fails with another code than Unavailable, attempts or time run
// out, or a stop is requested. Each run gets a fresh context with its deadline set. Blocks.
// Returns the last attempt's status, its message prefixed with the method; Cancelled after a stop.
absl::Status CallWithRetries(const CallOptions& options,
                             absl::FunctionRef<grpc::Status(grpc::ClientContext*)> attempt);

// One unary call:
//   CallUnary(stub.get(), &v1::Orchestrator::StubInterface::AcquireWork, request, &response,
//             {.method = "AcquireWork", .timeout = absl::Seconds(5), .stop = &stop});
// The response is meaningful only if OK is returned.
template <typename Stub, typename Request, typename Response>
absl::Status CallUnary(std::type_identity_t<Stub>* stub,
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                    Response*),
                       const std::type_identity_t<Request>& request,
                       std::type_identity_t<Response>* response, const CallOptions& options) {
  return CallWithRetries(options, [&](grpc::ClientContext* context) {
    response->Clear();
    return (stub->*method)(context, request, response);
  });
}

// Asks the standard health service of the server at the other end.
// Returns: OK if it says SERVING; Unavailable if not, or if it cannot be reached.
absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel, const CallOptions& options);

}  // namespace temper::rpc
