#pragma once

#include <string>
#include <string_view>

namespace temper::testing {

// The whole answer (status line, head, body) of a server on 127.0.0.1 to one request, or "" if it
// cannot be reached or is silent for 20 s.
std::string HttpRequest(int port, std::string_view method, std::string_view path);
inline std::string HttpGet(int port, std::string_view path) {
  return HttpRequest(port, "GET", path);
}

}  // namespace temper::testing
