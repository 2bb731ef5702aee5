#include "services/rpc/client.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stop_token>

#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"
#include "services/base/address.h"
#include "services/base/check.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"
#include "services/rpc/grpc_log.h"
#include "services/rpc/status.h"

namespace temper::rpc {
namespace {

grpc::ChannelArguments ArgumentsOfChannel(int max_message_bytes) {
  grpc::ChannelArguments arguments;
  // An http_proxy in the environment would otherwise take calls to loopback out of the machine.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // retries are CallWithRetries', with their metrics
  arguments.SetMaxReceiveMessageSize(max_message_bytes);
  arguments.SetMaxSendMessageSize(max_message_bytes);
  // A peer that was stopped or cut off answers no ping: its calls fail within half a minute.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // gRPC's default lets a peer that came back wait up to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);  // time for one attempt to connect
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  return arguments;
}

// One attempt, cancelled when a stop is requested.
absl::Status RunAttempt(const CallOptions& options, absl::Time deadline,
                        absl::FunctionRef<grpc::Status(grpc::ClientContext*)> attempt) {
  const absl::Time start = options.clock->Now();
  grpc::ClientContext context;
  context.set_wait_for_ready(options.wait_for_ready);
  // gRPC knows only real time; the clock's may be moved by hand.
  context.set_deadline(absl::ToChronoTime(absl::Now() + (deadline - start)));
  std::optional<std::stop_callback<std::function<void()>>> on_stop;
  if (options.stop != nullptr) {
    on_stop.emplace(options.stop->OnStop(), [&context] { context.TryCancel(); });
  }
  const absl::Status status = FromGrpcStatus(attempt(&context));
  if (options.metrics != nullptr) {
    options.metrics->RecordClient(options.method, status.code(), options.clock->Now() - start);
  }
  return status;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(std::string_view address,
                                                           const TlsOptions& tls,
                                                           int max_message_bytes) {
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort peer, base::ParseHostPort(address));
  if (peer.port == 0) {
    return absl::InvalidArgumentError(base::Cat("cannot call ", address, ": port 0"));
  }
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ChannelCredentials> credentials,
                          ClientCredentials(tls));
  RouteGrpcLog();
  return grpc::CreateCustomChannel(base::Cat("dns:///", base::JoinHostPort(peer.host, peer.port)),
                                   credentials, ArgumentsOfChannel(max_message_bytes));
}

absl::Duration BackoffBefore(const RetryPolicy& policy, int attempt, std::string_view method,
                             uint64_t jitter_key) {
  const double growth = std::pow(policy.multiplier, std::max(0, attempt - 2));
  // Against the bound as a number: growth may be too large for a duration's arithmetic.
  const double seconds = std::min(absl::ToDoubleSeconds(policy.initial_backoff) * growth,
                                  absl::ToDoubleSeconds(policy.max_backoff));
  const uint64_t draw = base::Hash64(base::Cat(method, "/", jitter_key, "/", attempt));
  const double factor = 0.5 + 0.5 * std::ldexp(static_cast<double>(draw >> 11), -53);
  return absl::Seconds(seconds * factor);
}

absl::Status CallWithRetries(const CallOptions& options,
                             absl::FunctionRef<grpc::Status(grpc::ClientContext*)> attempt) {
  TEMPER_CHECK(options.timeout < absl::InfiniteDuration(), "every call has a deadline");
  const absl::Status stopped = absl::CancelledError("this process is stopping");
  base::StopToken never;
  base::StopToken* stop = options.stop != nullptr ? options.stop : &never;
  for (int number = 1;; ++number) {
    if (stop->StopRequested()) return base::Annotate(stopped, options.method);
    const absl::Time deadline = std::min(options.clock->Now() + options.timeout, options.deadline);
    const absl::Status status = RunAttempt(options, deadline, attempt);
    if (!absl::IsUnavailable(status) || number >= options.retry.max_attempts) {
      return base::Annotate(status, options.method);
    }
    const absl::Duration wait =
        BackoffBefore(options.retry, number + 1, options.method, options.jitter_key);
    if (options.clock->Now() + wait >= options.deadline)
      return base::Annotate(status, options.method);
    if (options.metrics != nullptr) options.metrics->CountRetry(options.method);
    if (stop->WaitFor(wait, options.clock)) return base::Annotate(stopped, options.method);
  }
}

}  // namespace temper::rpc
