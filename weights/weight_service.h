#pragma once

// WeightService over gRPC: streams the buckets of a version from a WeightSource, and the model
// files from a ModelFileSource.

#include <atomic>
#include <cstdint>

#include "services/rpc/rpc_metrics.h"
#include "temper/v1/weights.grpc.pb.h"
#include "weights/model_files.h"
#include "weights/weight_source.h"

namespace temper::weights {

struct WeightServiceOptions {
  const WeightSource* source = nullptr;          // outlives the service; needed
  const ModelFileSource* model_files = nullptr;  // likewise; null: none are served
  uint32_t chunk_bytes = 1 << 20;                // payload of one message; 1 .. 32 MiB, clamped
  absl::Duration longest_stream = absl::Minutes(10);  // a puller that stalls is dropped then
  rpc::RpcMetrics* metrics = nullptr;                 // may be null
};

// Register it with rpc::RpcServer beside the learner's own service. Handlers never block: a stream
// holds its version and writes the next chunk when gRPC has taken the last one, so memory in flight
// is one chunk per puller.
class WeightServiceImpl final : public v1::WeightService::CallbackService {
 public:
  explicit WeightServiceImpl(const WeightServiceOptions& options);
  // For streams that begin from now on: the server runs before the configuration is known.
  void SetChunkBytes(uint32_t chunk_bytes);
  grpc::ServerWriteReactor<v1::BucketChunk>* PullBuckets(
      grpc::CallbackServerContext* context, const v1::PullBucketsRequest* request) override;
  grpc::ServerUnaryReactor* GetBaseManifest(grpc::CallbackServerContext* context,
                                            const v1::GetBaseManifestRequest* request,
                                            v1::Manifest* reply) override;
  grpc::ServerWriteReactor<v1::FileChunk>* PullModelFiles(
      grpc::CallbackServerContext* context, const v1::PullModelFilesRequest* request) override;

 private:
  const WeightServiceOptions options_;
  std::atomic<uint32_t> chunk_bytes_;
};

}  // namespace temper::weights
