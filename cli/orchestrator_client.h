#pragma once

// The few calls a person's commands make to the orchestrator of a run. Thread-safe.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/tls.h"
#include "temper/v1/orchestrator.grpc.pb.h"

namespace temper::cli {

class OrchestratorClient final {
 public:
  // address: host:port. InvalidArgument for a malformed one, or for TLS files that cannot be used.
  static absl::StatusOr<std::unique_ptr<OrchestratorClient>> Create(const std::string& address,
                                                                    const rpc::TlsOptions& tls);

  // Each call is tried until it is answered or `timeout` has passed (Unavailable or
  // DeadlineExceeded then).
  absl::StatusOr<v1::GetStatusReply> GetStatus(uint64_t after_step, absl::Duration timeout);
  absl::Status SetDesired(const std::string& run_id, v1::Role role, uint32_t count);
  absl::Status StopRun(const std::string& run_id, const std::string& reason, bool failed);

 private:
  explicit OrchestratorClient(std::unique_ptr<v1::OrchestratorService::Stub> stub)
      : stub_(std::move(stub)) {}
  const std::unique_ptr<v1::OrchestratorService::Stub> stub_;
};

}  // namespace temper::cli
