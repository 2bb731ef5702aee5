#pragma once

// Starts and drains a gRPC server.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "services/rpc/tls.h"

namespace grpc {
class Server;
}

namespace temper::rpc {

// Messages above this are refused with ResourceExhausted. 64 MiB: a group of tokens is far below
// it, weights travel in chunks.
inline constexpr int kDefaultMaxMessageBytes = 64 << 20;

struct ServerOptions {
  std::string listen_address = "127.0.0.1:0";  // host:port; port 0: any free port
  std::vector<grpc::Service*> services;        // at least one; outlive the server
  TlsOptions tls;
  bool insecure_network = false;  // allows a bind off loopback without TLS
  int max_message_bytes = kDefaultMaxMessageBytes;
  std::string advertise_towards;  // a peer's "host:port"; see base::AdvertisedAddress
};

// A running server with the standard health service, and reflection when it listens on loopback.
// Thread-safe. Handlers run on gRPC's threads. Ends by Shutdown, or by destruction (no drain).
class RpcServer final {
 public:
  // Binds and serves at once; health says SERVING.
  // Returns: InvalidArgument for a malformed address, TLS files that cannot be used, or a bind off
  // loopback without TLS and without insecure_network; Unavailable if the address cannot be bound
  // (the port is in use, the host is not of this machine).
  static absl::StatusOr<std::unique_ptr<RpcServer>> Create(const ServerOptions& options);
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  const std::string& address() const { return address_; }  // "host:port" as others reach it
  int port() const { return port_; }                       // the port that was bound

  // What the health service says for the whole server.
  void SetServing(bool serving);

  // Health says NOT_SERVING, new calls are refused, running ones have until `drain` has passed and
  // are then cancelled (OnCancel of deferred replies runs). Returns when all handlers have ended.
  // A second call does nothing.
  void Shutdown(absl::Duration drain);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address, int port);
  std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  const int port_;
};

}  // namespace temper::rpc
