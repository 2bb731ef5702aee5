#include "services/rpc/server.h"

#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "services/base/address.h"
#include "services/base/check.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"
#include "services/rpc/grpc_log.h"

namespace temper::rpc {
namespace {

// The health service is a switch of the whole process in gRPC; it must be on before a server
// starts.
void EnableHealthService() {
  static std::once_flag once;
  std::call_once(once, [] { grpc::EnableDefaultHealthCheckService(true); });
}

// Reflection lists every method to whoever asks. gRPC's library adds it to all servers as soon as
// it is linked, so it must be taken out where it is not wanted.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool enabled) : enabled_(enabled) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto reflection = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    std::erase_if(*plugins,
                  [&](const auto& plugin) { return plugin->name() == reflection->name(); });
    if (enabled_) plugins->push_back(std::move(reflection));
  }

 private:
  const bool enabled_;
};

absl::Status CheckExposure(const base::HostPort& listen, const ServerOptions& options) {
  if (base::IsLoopback(listen.host) || options.tls.enabled() || options.insecure_network) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      base::Cat("listening on ", options.listen_address,
                " would let other machines in without TLS; give a certificate and key, listen "
                "on 127.0.0.1, or say --insecure-network"));
}

void ConfigureBuilder(const ServerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(options.max_message_bytes);
  builder->SetMaxSendMessageSize(options.max_message_bytes);
  // With SO_REUSEPORT a second server on the same port would silently take half of the calls.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Clients of ours ping every 20 s (client.cc); gRPC's default would cut them off for it.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  for (grpc::Service* service : options.services) builder->RegisterService(service);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Create(const ServerOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(const base::HostPort listen, base::ParseHostPort(options.listen_address));
  TEMPER_RETURN_IF_ERROR(CheckExposure(listen, options));
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<grpc::ServerCredentials> credentials,
                          ServerCredentials(options.tls));
  TEMPER_CHECK(!options.services.empty(), "a server serves something");
  EnableHealthService();
  RouteGrpcLog();
  grpc::ServerBuilder builder;
  ConfigureBuilder(options, &builder);
  builder.SetOption(std::make_unique<ReflectionOption>(base::IsLoopback(listen.host)));
  int port = 0;
  builder.AddListeningPort(options.listen_address, std::move(credentials), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(base::Cat(
        "cannot listen on ", options.listen_address,
        ": the port is in use, or the address is not one of this machine, or the TLS files do not "
        "fit together"));
  }
  std::string address = base::AdvertisedAddress(listen.host, port, options.advertise_towards);
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(server), std::move(address), port));
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, std::string address, int port)
    : server_(std::move(server)), address_(std::move(address)), port_(port) {
  SetServing(true);
}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

void RpcServer::Shutdown(absl::Duration drain) {
  SetServing(false);
  server_->Shutdown(absl::ToChronoTime(absl::Now() + drain));
  server_->Wait();
}

}  // namespace temper::rpc
