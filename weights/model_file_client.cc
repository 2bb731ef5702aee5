#include "weights/model_file_client.h"

#include <utility>

#include "grpcpp/client_context.h"
#include "services/base/file_parts.h"
#include "services/base/status_macros.h"
#include "services/rpc/client.h"
#include "services/rpc/file_stream.h"
#include "services/rpc/status.h"
#include "temper/v1/weights.grpc.pb.h"

namespace temper::weights {

absl::StatusOr<ModelFiles> PullModelFiles(const ModelFilePull& pull) {
  TEMPER_ASSIGN_OR_RETURN(const auto channel, rpc::MakeChannel(pull.address, pull.tls));
  const auto stub = v1::WeightService::NewStub(channel);
  v1::PullModelFilesRequest request;
  request.set_run_id(pull.run_id);
  base::FilePartsCheck check(ModelFileLimits());
  ModelFiles files;
  const auto read_stream = [&](grpc::ClientContext* context) {
    const auto stream = stub->PullModelFiles(context, request);
    return rpc::ToGrpcStatus(rpc::ReadFileParts<v1::FileChunk>(
        stream.get(), context, &check, [&](const v1::FileChunk& chunk) {
          files[chunk.name()].append(chunk.payload());
          return absl::OkStatus();
        }));
  };
  TEMPER_RETURN_IF_ERROR(rpc::CallWithRetries({.method = "PullModelFiles",
                                               .timeout = pull.timeout,
                                               .stop = pull.stop,
                                               .metrics = pull.metrics},
                                              read_stream));
  TEMPER_RETURN_IF_ERROR(CheckModelFiles(files));
  return files;
}

}  // namespace temper::weights
