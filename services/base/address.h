#pragma once

// Network addresses as text.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper::base {

struct HostPort {
  std::string host;  // a name or a numeric address, IPv6 without brackets
  int port = 0;      // 0..65535
};

// Reads "127.0.0.1:80", "worker-3:80", "[::1]:80". Returns: InvalidArgument, quoting the text.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

// "127.0.0.1:80", "[::1]:80".
std::string JoinHostPort(std::string_view host, int port);

// Whether only this machine can reach a socket bound to `host`: 127.0.0.0/8, ::1 or "localhost".
bool IsLoopback(std::string_view host);

// The address under which others reach a server that listens on listen_host:port. A real host is
// returned as it is; a wildcard (0.0.0.0, ::, empty) becomes the address of the interface that
// leads to `peer` ("host:port" of the process one joins; empty: the first that is up and not
// loopback; loopback if there is none).
std::string AdvertisedAddress(std::string_view listen_host, int port, std::string_view peer = "");

}  // namespace temper::base
