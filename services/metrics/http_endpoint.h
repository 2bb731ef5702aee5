#pragma once

// The small HTTP server of every role: /metrics, /healthz, and what the role adds (/sd).

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/metrics/registry.h"

namespace temper::metrics {

struct HttpResponse {
  int status_code = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Answers a GET. Called on a thread of the server, several at a time: must be thread-safe, quick,
// and must not throw.
using HttpHandler = std::function<HttpResponse()>;

struct HttpEndpointOptions {
  std::string host = "127.0.0.1";  // a numeric address or "localhost"
  int port = 0;                    // 0: any free port, see HttpEndpoint::port
  bool insecure_network = false;   // the endpoint is plain HTTP: true allows a host off loopback
  const MetricsRegistry* registry = nullptr;    // served at /metrics; outlives the endpoint
  std::function<bool()> healthy = nullptr;      // /healthz: 200 or 503; null: always 200
  std::map<std::string, HttpHandler> handlers;  // by path: {"/sd", ...}
};

// Owns the listening socket and two threads, from Create until destruction, which waits for running
// handlers. Only GET and HEAD are answered (405 otherwise); unknown paths get 404; requests that
// stall are dropped after 10 s.
class HttpEndpoint final {
 public:
  // Returns: InvalidArgument for a bad host or port, or a host off loopback without
  // insecure_network; Unavailable if the address cannot be bound (the port is in use).
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Create(HttpEndpointOptions options);
  ~HttpEndpoint();
  HttpEndpoint(const HttpEndpoint&) = delete;
  HttpEndpoint& operator=(const HttpEndpoint&) = delete;

  int port() const;                    // the port that was bound
  const std::string& address() const;  // "host:port" as others reach it (base::AdvertisedAddress)

 private:
  struct Server;
  explicit HttpEndpoint(std::unique_ptr<Server> server);
  std::unique_ptr<Server> server_;
};

}  // namespace temper::metrics
