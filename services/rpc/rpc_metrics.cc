#include "services/rpc/rpc_metrics.h"

#include <string>

namespace temper::rpc {
namespace {

metrics::Labels CallLabels(std::string_view method, absl::StatusCode code) {
  return {{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}};
}

}  // namespace

void RpcMetrics::RecordClient(std::string_view method, absl::StatusCode code,
                              absl::Duration latency) {
  registry_
      ->AddHistogram("temper_rpc_client_seconds", "Latency of one attempt of an outgoing call.",
                     metrics::SecondsBuckets(), CallLabels(method, code))
      .Observe(absl::ToDoubleSeconds(latency));
}

void RpcMetrics::RecordServer(std::string_view method, absl::StatusCode code,
                              absl::Duration latency) {
  registry_
      ->AddHistogram("temper_rpc_server_seconds", "Time from a request's arrival to its answer.",
                     metrics::SecondsBuckets(), CallLabels(method, code))
      .Observe(absl::ToDoubleSeconds(latency));
}

void RpcMetrics::CountRetry(std::string_view method) {
  registry_
      ->AddCounter("temper_rpc_client_retries_total",
                   "Outgoing calls tried again because the peer was unavailable.",
                   {{"method", std::string(method)}})
      .Increment();
}

}  // namespace temper::rpc
