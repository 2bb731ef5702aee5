#include "services/rpc/tls.h"

#include <string_view>

#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::rpc {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

absl::StatusOr<std::string> ReadPem(std::string_view what, const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(base::Cat("TLS needs a ", what, " file"));
  }
  absl::StatusOr<std::string> text = base::ReadFile(path, kMaxPemBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        base::Cat("the TLS ", what, " file: ", text.status().message()));
  }
  if (text->empty()) {
    return absl::InvalidArgumentError(base::Cat("the TLS ", what, " file ", path, " is empty"));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const TlsOptions& tls) {
  if (!tls.enabled()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  TEMPER_ASSIGN_OR_RETURN(pair.cert_chain, ReadPem("certificate", tls.certificate_file));
  TEMPER_ASSIGN_OR_RETURN(pair.private_key, ReadPem("private key", tls.private_key_file));
  grpc::SslServerCredentialsOptions options(
      tls.ca_file.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                          : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  if (!tls.ca_file.empty()) {
    TEMPER_ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem("CA", tls.ca_file));
  }
  options.pem_key_cert_pairs.push_back(std::move(pair));
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(const TlsOptions& tls) {
  if (!tls.enabled()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  TEMPER_ASSIGN_OR_RETURN(options.pem_root_certs, ReadPem("CA", tls.ca_file));
  if (!tls.certificate_file.empty()) {
    TEMPER_ASSIGN_OR_RETURN(options.pem_cert_chain, ReadPem("certificate", tls.certificate_file));
    TEMPER_ASSIGN_OR_RETURN(options.pem_private_key, ReadPem("private key", tls.private_key_file));
  }
  return grpc::SslCredentials(options);
}

std::optional<std::string> TlsTrouble(const absl::Status& status, const TlsOptions& tls) {
  const auto says = [&](std::string_view word) {
    return std::string_view(status.message().data(), status.message().size()).find(word) !=
           std::string_view::npos;
  };
  if (!absl::IsUnavailable(status)) return std::nullopt;
  if (tls.enabled() && says("andshake")) {
    const std::string shown =
        tls.certificate_file.empty() ? "no certificate is shown" : tls.certificate_file;
    return base::Cat("the TLS handshake failed: the other side does not take what it is shown (",
                     shown, "), or its own certificate is not of ", tls.ca_file,
                     " or not for this address, or it speaks no TLS");
  }
  if (!tls.enabled() && (says("SETTINGS frame") || says("Socket closed"))) {
    return "the other side takes no plain text; if it speaks TLS, give --tls-ca, --tls-certificate "
           "and --tls-key";
  }
  return std::nullopt;
}

}  // namespace temper::rpc
