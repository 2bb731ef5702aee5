#include "tests/support/http_get.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "services/base/text.h"

namespace temper::testing {

std::string HttpRequest(int port, std::string_view method, std::string_view path) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit = {.tv_sec = 20};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request =
        base::Cat(method, " ", path, " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    send(descriptor, request.data(), request.size(), MSG_NOSIGNAL);
    char part[4096];
    for (ssize_t read; (read = recv(descriptor, part, sizeof part, 0)) > 0;) {
      answer.append(part, static_cast<size_t>(read));
    }
  }
  close(descriptor);
  return answer;
}

}  // namespace temper::testing
