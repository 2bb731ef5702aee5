#include "services/metrics/http_endpoint.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <utility>
#include <vector>

#include "CivetServer.h"
#include "absl/synchronization/notification.h"
#include "services/base/address.h"
#include "services/base/log.h"
#include "services/base/text.h"

namespace temper::metrics {
namespace {

// Answers every path: civetweb's own matching by prefix would serve /metrics/anything.
class Router final : public CivetHandler {
 public:
  explicit Router(HttpEndpointOptions options) : options_(std::move(options)) {}

  bool handleGet(CivetServer*, mg_connection* connection) override {
    Send(connection, Answer(mg_get_request_info(connection)->local_uri), /*with_body=*/true);
    return true;
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    Send(connection, Answer(mg_get_request_info(connection)->local_uri), /*with_body=*/false);
    return true;
  }
  bool handlePost(CivetServer*, mg_connection* connection) override { return Refuse(connection); }
  bool handlePut(CivetServer*, mg_connection* connection) override { return Refuse(connection); }
  bool handleDelete(CivetServer*, mg_connection* connection) override { return Refuse(connection); }
  bool handleOptions(CivetServer*, mg_connection* connection) override {
    return Refuse(connection);
  }
  bool handlePatch(CivetServer*, mg_connection* connection) override { return Refuse(connection); }

 private:
  HttpResponse Answer(const std::string& path) const {
    if (path == "/metrics" && options_.registry != nullptr) {
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
              .body = options_.registry->Serialize()};
    }
    if (path == "/healthz") {
      const bool healthy = options_.healthy == nullptr || options_.healthy();
      return {.status_code = healthy ? 200 : 503, .body = healthy ? "ok\n" : "not serving\n"};
    }
    if (const auto found = options_.handlers.find(path); found != options_.handlers.end()) {
      return found->second();
    }
    return {.status_code = 404, .body = "not found\n"};
  }

  static bool Refuse(mg_connection* connection) {
    Send(connection, {.status_code = 405, .body = "only GET and HEAD\n"}, /*with_body=*/true);
    return true;
  }

  static void Send(mg_connection* connection, const HttpResponse& response, bool with_body) {
    const std::string head =
        base::Cat("HTTP/1.1 ", response.status_code, " ",
                  mg_get_response_code_text(connection, response.status_code),
                  "\r\nContent-Type: ", response.content_type,
                  "\r\nContent-Length: ", response.body.size(), "\r\nConnection: close\r\n\r\n");
    mg_write(connection, head.data(), head.size());
    if (with_body) mg_write(connection, response.body.data(), response.body.size());
  }

  const HttpEndpointOptions options_;
};

// civetweb's own complaints belong in our log, not on a terminal.
int LogFromCivetweb(const mg_connection*, const char* message) {
  base::LogWarning("http_endpoint", {{"message", message}});
  return 1;
}

// Opens and drops a connection to one of our own ports.
void Knock(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), base::Cat(port).c_str(), &hints, &found) != 0) return;
  const int descriptor =
      socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, /*protocol=*/0);
  if (descriptor >= 0) {
    (void)connect(descriptor, found->ai_addr, found->ai_addrlen);
    close(descriptor);
  }
  freeaddrinfo(found);
}

}  // namespace

struct HttpEndpoint::Server {
  explicit Server(HttpEndpointOptions options) : router(std::move(options)) {}
  ~Server();
  Router router;
  std::unique_ptr<CivetServer> civet;  // after router: stops before what it calls goes away
  std::string host;
  int port = 0;
  std::string address;
};

// civetweb's accepting thread looks at its stop flag only between connections or every two seconds:
// too long for a process that drains, so it is given connections until it has seen the flag.
HttpEndpoint::Server::~Server() {
  if (civet == nullptr) return;
  absl::Notification closed;
  std::thread closer([&] {
    civet->close();
    closed.Notify();
  });
  while (!closed.WaitForNotificationWithTimeout(absl::Milliseconds(5))) Knock(host, port);
  closer.join();
}

HttpEndpoint::HttpEndpoint(std::unique_ptr<Server> server) : server_(std::move(server)) {}
HttpEndpoint::~HttpEndpoint() = default;

int HttpEndpoint::port() const { return server_->port; }
const std::string& HttpEndpoint::address() const { return server_->address; }

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Create(HttpEndpointOptions options) {
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(
        base::Cat("metrics port ", options.port, " is not in 0..65535"));
  }
  if (!base::IsLoopback(options.host) && !options.insecure_network) {
    return absl::InvalidArgumentError(base::Cat(
        "the metrics endpoint would listen on ", options.host,
        ", which other machines reach, without TLS; use 127.0.0.1 or --insecure-network"));
  }
  // civetweb wants numbers; what else it would read into a name (options, lists) is not let
  // through.
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  if (host.empty() || host.find_first_not_of("0123456789abcdefABCDEF.:") != std::string::npos) {
    return absl::InvalidArgumentError(
        base::Cat("metrics host \"", options.host, "\" is not a numeric address"));
  }
  const std::string listen = base::JoinHostPort(host, options.port);
  auto server = std::make_unique<Server>(std::move(options));
  static const CivetCallbacks callbacks = [] {
    CivetCallbacks made;
    made.log_message = LogFromCivetweb;
    return made;
  }();
  try {
    server->civet = std::make_unique<CivetServer>(
        std::vector<std::string>{"listening_ports", listen, "num_threads", "2",
                                 "request_timeout_ms", "10000", "enable_keep_alive", "no"},
        &callbacks);
  } catch (const CivetException&) {
    return absl::UnavailableError(
        base::Cat("cannot listen on ", listen, " for metrics: is the port in use?"));
  }
  server->host = host;
  server->civet->addHandler("/", server->router);
  const std::vector<int> ports = server->civet->getListeningPorts();
  if (ports.size() != 1) return absl::InternalError("civetweb bound no port");
  server->port = ports[0];
  server->address = base::AdvertisedAddress(host, server->port);
  return std::unique_ptr<HttpEndpoint>(new HttpEndpoint(std::move(server)));
}

}  // namespace temper::metrics
