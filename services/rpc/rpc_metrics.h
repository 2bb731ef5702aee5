#pragma once

// Latency of RPCs, on either side: temper_rpc_client_seconds and temper_rpc_server_seconds, by
// method and status code, and temper_rpc_client_retries_total by method.

#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/metrics/registry.h"

namespace temper::rpc {

// Thread-safe; the registry outlives it.
class RpcMetrics final {
 public:
  explicit RpcMetrics(metrics::MetricsRegistry* registry) : registry_(registry) {}

  // `method` is the method's name alone ("AcquireWork"). Client: one attempt; server: one handler,
  // from its start until the answer was handed to gRPC.
  void RecordClient(std::string_view method, absl::StatusCode code, absl::Duration latency);
  void RecordServer(std::string_view method, absl::StatusCode code, absl::Duration latency);
  void CountRetry(std::string_view method);

 private:
  metrics::MetricsRegistry* const registry_;
};

}  // namespace temper::rpc
