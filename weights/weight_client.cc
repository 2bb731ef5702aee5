#include "weights/weight_client.h"

#include <stop_token>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "services/base/status_macros.h"
#include "services/rpc/client.h"
#include "services/rpc/status.h"
#include "temper/v1/weights.grpc.pb.h"

namespace temper::weights {

struct WeightClient::Connection {
  std::string address;
  std::unique_ptr<v1::WeightService::Stub> stub;
};

WeightClient::WeightClient(WeightClientOptions options) : options_(std::move(options)) {}
WeightClient::~WeightClient() = default;

absl::Status WeightClient::Receive(VersionAssembler* assembler, absl::Time deadline) {
  const v1::Manifest& manifest = assembler->manifest();
  if (connection_ == nullptr || connection_->address != manifest.source_address()) {
    TEMPER_ASSIGN_OR_RETURN(auto channel,
                            rpc::MakeChannel(manifest.source_address(), options_.tls));
    connection_ = std::make_unique<Connection>(
        Connection{manifest.source_address(), v1::WeightService::NewStub(channel)});
  }
  v1::PullBucketsRequest request;
  request.set_run_id(manifest.run_id());
  request.set_timeline(manifest.timeline());
  request.set_version(manifest.version());
  for (const uint32_t bucket : assembler->Missing()) request.add_buckets(bucket);
  if (request.buckets().empty()) return absl::OkStatus();

  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  std::stop_callback cancel(aborted_.OnStop(), [&context] { context.TryCancel(); });
  auto stream = connection_->stub->PullBuckets(&context, request);
  v1::BucketChunk chunk;
  absl::Status taken;
  while (taken.ok() && stream->Read(&chunk)) {
    taken = assembler->AddChunk(chunk.bucket(), chunk.offset_bytes(), chunk.payload());
  }
  if (!taken.ok()) context.TryCancel();
  const absl::Status ended = rpc::FromGrpcStatus(stream->Finish());
  if (aborted_.StopRequested()) {
    absl::MutexLock lock(&mutex_);
    return absl::AbortedError(abort_reason_);
  }
  if (!taken.ok()) return taken;
  TEMPER_RETURN_IF_ERROR(ended);
  const size_t missing = assembler->Missing().size();
  if (missing > 0) {
    return absl::DataLossError(absl::StrCat("the stream of version ", manifest.version(), " ended ",
                                            missing, " buckets early"));
  }
  return absl::OkStatus();
}

void WeightClient::Abort(std::string_view reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (abort_reason_.empty()) abort_reason_ = absl::StrCat("aborted: ", std::string(reason));
  }
  aborted_.RequestStop();
}

}  // namespace temper::weights
