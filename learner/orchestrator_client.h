#pragma once

// OrchestratorLink over gRPC.

#include <cstdint>
#include <memory>
#include <string>

#include "learner/orchestrator_link.h"
#include "services/base/stop_token.h"
#include "services/rpc/client.h"
#include "services/rpc/rpc_metrics.h"
#include "temper/v1/orchestrator.grpc.pb.h"

namespace temper::learner {

struct OrchestratorClientOptions {
  std::string address;  // "host:port"
  rpc::TlsOptions tls;
  uint64_t jitter_key = 0;          // tells this process's back-off apart
  base::StopToken* stop = nullptr;  // raised: calls in flight end; may be null
  rpc::RpcMetrics* metrics = nullptr;
};

// Owns one channel. Thread-safe.
class OrchestratorClient final : public OrchestratorLink {
 public:
  // InvalidArgument for a malformed address or unusable TLS files; connects on first use.
  static absl::StatusOr<std::unique_ptr<OrchestratorClient>> Create(
      const OrchestratorClientOptions& options);

  absl::StatusOr<v1::BeginTimelineReply> BeginTimeline(const v1::BeginTimelineRequest& request,
                                                       absl::Time deadline) override;
  absl::StatusOr<v1::AdmitGroupReply> AdmitGroup(const v1::AdmitGroupRequest& request,
                                                 absl::Time deadline) override;
  absl::StatusOr<v1::CommitStepReply> CommitStep(const v1::CommitStepRequest& request,
                                                 absl::Time deadline) override;
  absl::StatusOr<v1::PublishManifestReply> PublishManifest(
      const v1::PublishManifestRequest& request, absl::Time deadline) override;
  absl::Status FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                  absl::Time deadline) override;
  absl::Status EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                 absl::Time deadline) override;
  absl::Status SnapshotLedger(const v1::SnapshotLedgerRequest& request, const std::string& path,
                              absl::Time deadline) override;
  absl::Status StopRun(const v1::StopRunRequest& request, absl::Time deadline) override;

 private:
  OrchestratorClient(OrchestratorClientOptions options, std::shared_ptr<grpc::Channel> channel);
  rpc::CallOptions Call(std::string_view method, absl::Time deadline) const;

  const OrchestratorClientOptions options_;
  const std::unique_ptr<v1::OrchestratorService::StubInterface> stub_;
};

}  // namespace temper::learner
