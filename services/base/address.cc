#include "services/base/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "services/base/text.h"

namespace temper::base {
namespace {

std::string NumericHost(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  const void* raw =
      address->sa_family == AF_INET
          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(address)->sin_addr)
          : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  inet_ntop(address->sa_family, raw, text, sizeof text);
  return text;
}

// The local address that packets to `peer` would leave from; empty if there is no route. Connecting
// a datagram socket sends nothing.
std::string LocalAddressTowards(const HostPort& peer) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(peer.host.c_str(), Cat(peer.port).c_str(), &hints, &found) != 0) {
    return "";
  }
  std::string host;
  for (const addrinfo* entry = found; entry != nullptr && host.empty(); entry = entry->ai_next) {
    const int descriptor = socket(entry->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) continue;
    sockaddr_storage local{};
    socklen_t size = sizeof local;
    if (connect(descriptor, entry->ai_addr, entry->ai_addrlen) == 0 &&
        getsockname(descriptor, reinterpret_cast<sockaddr*>(&local), &size) == 0) {
      host = NumericHost(reinterpret_cast<const sockaddr*>(&local));
    }
    close(descriptor);
  }
  freeaddrinfo(found);
  return host;
}

// IPv4 first: a link-local IPv6 address would need its interface's name to be reached.
std::string FirstOutsideAddress() {
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) != 0) return "";
  std::string host;
  for (const ifaddrs* entry = interfaces; entry != nullptr && host.empty();
       entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_UP) == 0 || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    host = NumericHost(entry->ifa_addr);
  }
  freeifaddrs(interfaces);
  return host;
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  const auto bad = [text](std::string_view why) {
    return absl::InvalidArgumentError(
        Cat("\"", text, "\" is not an address of the form host:port: ", why));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("there is no port");
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return bad("\"[\" is not closed");
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad("an IPv6 address stands in brackets");
  }
  if (host.empty()) return bad("the host is empty");
  const std::string_view port_text = text.substr(colon + 1);
  int port = -1;
  if (port_text.find_first_not_of("0123456789") != std::string_view::npos ||
      !absl::SimpleAtoi(ToAbsl(port_text), &port) || port > 65535) {
    return bad("the port is not a number from 0 to 65535");
  }
  return HostPort{.host = std::string(host), .port = port};
}

std::string JoinHostPort(std::string_view host, int port) {
  if (host.find(':') != std::string_view::npos) return Cat("[", host, "]:", port);
  return Cat(host, ":", port);
}

bool IsLoopback(std::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  in_addr address;
  if (inet_pton(AF_INET, std::string(host).c_str(), &address) != 1) return false;
  return (ntohl(address.s_addr) >> 24) == 127;
}

std::string AdvertisedAddress(std::string_view listen_host, int port, std::string_view peer) {
  if (!listen_host.empty() && listen_host != "0.0.0.0" && listen_host != "::") {
    return JoinHostPort(listen_host, port);
  }
  std::string host;
  if (absl::StatusOr<HostPort> towards = ParseHostPort(peer); towards.ok()) {
    host = LocalAddressTowards(*towards);
  }
  if (host.empty()) host = FirstOutsideAddress();
  if (host.empty()) host = "127.0.0.1";
  return JoinHostPort(host, port);
}

}  // namespace temper::base
