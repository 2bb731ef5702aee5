#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace temper::rpc {

// PEM files. All empty: no TLS.
// Server: certificate and key are needed; with ca_file every client must show a certificate of it.
// Client: ca_file is needed; certificate and key are shown to a server that asks.
struct TlsOptions {
  std::string certificate_file;
  std::string private_key_file;
  std::string ca_file;
  bool enabled() const {
    return !certificate_file.empty() || !private_key_file.empty() || !ca_file.empty();
  }
};

// Both return insecure credentials for disabled options. Errors: InvalidArgument if a file that is
// needed is not named, cannot be read, is empty, or is larger than 1 MiB.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const TlsOptions& tls);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(const TlsOptions& tls);

// What a person should look at if a call under `tls` failed because the two sides do not agree
// about TLS; nullopt if `status` shows no sign of that. gRPC says it in words alone, so this is a
// hint: also a server that dies during a handshake looks like that for a moment.
std::optional<std::string> TlsTrouble(const absl::Status& status, const TlsOptions& tls);

}  // namespace temper::rpc
