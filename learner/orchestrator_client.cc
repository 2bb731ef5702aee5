#include "learner/orchestrator_client.h"

#include <limits>
#include <utility>

#include "services/base/file_parts.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"
#include "services/rpc/file_stream.h"
#include "services/rpc/status.h"

namespace temper::learner {
namespace {

using Stub = v1::OrchestratorService::StubInterface;

// A ledger has some 200 bytes an attempt and a few kilobytes a step.
constexpr uint64_t kMaxLedgerBytes = uint64_t{64} << 30;
constexpr absl::Duration kLongestSnapshot = absl::Minutes(1);

// One stream, into a file that appears only once it is whole.
absl::Status ReadSnapshot(Stub* stub, const v1::SnapshotLedgerRequest& request,
                          const std::string& path, grpc::ClientContext* context) {
  TEMPER_ASSIGN_OR_RETURN(const auto writer, base::AtomicFileWriter::Create(path));
  base::FilePartsCheck check({{"ledger.db", kMaxLedgerBytes}});
  const auto stream = stub->SnapshotLedger(context, request);
  TEMPER_RETURN_IF_ERROR(rpc::ReadFileParts<v1::FileChunk>(
      stream.get(), context, &check,
      [&](const v1::FileChunk& chunk) { return writer->Append(chunk.payload()); }));
  if (check.whole().empty()) return absl::DataLossError("the stream of the ledger was empty");
  return writer->Commit();
}

}  // namespace

OrchestratorClient::OrchestratorClient(OrchestratorClientOptions options,
                                       std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)), stub_(v1::OrchestratorService::NewStub(channel)) {}

absl::StatusOr<std::unique_ptr<OrchestratorClient>> OrchestratorClient::Create(
    const OrchestratorClientOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                          rpc::MakeChannel(options.address, options.tls));
  return std::unique_ptr<OrchestratorClient>(new OrchestratorClient(options, std::move(channel)));
}

rpc::CallOptions OrchestratorClient::Call(std::string_view method, absl::Time deadline) const {
  rpc::CallOptions call;
  call.method = method;
  call.timeout = absl::Seconds(10);
  call.deadline = deadline;
  call.retry = {.max_attempts = std::numeric_limits<int>::max(), .max_backoff = absl::Seconds(1)};
  call.jitter_key = options_.jitter_key;
  call.stop = options_.stop;
  call.metrics = options_.metrics;
  return call;
}

absl::StatusOr<v1::BeginTimelineReply> OrchestratorClient::BeginTimeline(
    const v1::BeginTimelineRequest& request, absl::Time deadline) {
  v1::BeginTimelineReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &Stub::BeginTimeline, request, &reply,
                                        Call("BeginTimeline", deadline)));
  return reply;
}

absl::StatusOr<v1::AdmitGroupReply> OrchestratorClient::AdmitGroup(
    const v1::AdmitGroupRequest& request, absl::Time deadline) {
  v1::AdmitGroupReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &Stub::AdmitGroup, request, &reply,
                                        Call("AdmitGroup", deadline)));
  return reply;
}

absl::StatusOr<v1::CommitStepReply> OrchestratorClient::CommitStep(
    const v1::CommitStepRequest& request, absl::Time deadline) {
  v1::CommitStepReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &Stub::CommitStep, request, &reply,
                                        Call("CommitStep", deadline)));
  return reply;
}

absl::StatusOr<v1::PublishManifestReply> OrchestratorClient::PublishManifest(
    const v1::PublishManifestRequest& request, absl::Time deadline) {
  v1::PublishManifestReply reply;
  TEMPER_RETURN_IF_ERROR(rpc::CallUnary(stub_.get(), &Stub::PublishManifest, request, &reply,
                                        Call("PublishManifest", deadline)));
  return reply;
}

absl::Status OrchestratorClient::FormBroadcastGroup(const v1::FormBroadcastGroupRequest& request,
                                                    absl::Time deadline) {
  v1::FormBroadcastGroupReply reply;
  return rpc::CallUnary(stub_.get(), &Stub::FormBroadcastGroup, request, &reply,
                        Call("FormBroadcastGroup", deadline));
}

absl::Status OrchestratorClient::EndBroadcastGroup(const v1::EndBroadcastGroupRequest& request,
                                                   absl::Time deadline) {
  v1::EndBroadcastGroupReply reply;
  // Said while stopping too, as StopRun is.
  rpc::CallOptions call = Call("EndBroadcastGroup", deadline);
  call.stop = nullptr;
  return rpc::CallUnary(stub_.get(), &Stub::EndBroadcastGroup, request, &reply, call);
}

absl::Status OrchestratorClient::SnapshotLedger(const v1::SnapshotLedgerRequest& request,
                                                const std::string& path, absl::Time deadline) {
  rpc::CallOptions call = Call("SnapshotLedger", deadline);
  call.timeout = kLongestSnapshot;
  if (options_.stop != nullptr && options_.stop->StopRequested()) call.stop = nullptr;
  return rpc::CallWithRetries(call, [&](grpc::ClientContext* context) {
    return rpc::ToGrpcStatus(ReadSnapshot(stub_.get(), request, path, context));
  });
}

absl::Status OrchestratorClient::StopRun(const v1::StopRunRequest& request, absl::Time deadline) {
  v1::StopRunReply reply;
  // Said while stopping, so a raised stop must not cancel it.
  rpc::CallOptions call = Call("StopRun", deadline);
  call.stop = nullptr;
  return rpc::CallUnary(stub_.get(), &Stub::StopRun, request, &reply, call);
}

}  // namespace temper::learner
