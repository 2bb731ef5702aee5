#include "weights/weight_service.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "services/base/status_macros.h"
#include "services/rpc/reply.h"
#include "services/rpc/stream.h"

namespace temper::weights {
namespace {

constexpr uint32_t kLargestChunkBytes = 32 << 20;  // below gRPC's message limit with room to spare

// The buckets asked for, all if none are named.
absl::StatusOr<std::vector<uint32_t>> AskedBuckets(const v1::PullBucketsRequest& request,
                                                   size_t available) {
  std::vector<uint32_t> buckets(request.buckets().begin(), request.buckets().end());
  if (buckets.size() > available) {
    return absl::InvalidArgumentError("more buckets are asked for than the version has");
  }
  for (const uint32_t bucket : buckets) {
    if (bucket >= available) {
      return absl::InvalidArgumentError("a bucket is asked for that the version does not have");
    }
  }
  if (buckets.empty()) {
    for (size_t i = 0; i < available; ++i) buckets.push_back(static_cast<uint32_t>(i));
  }
  return buckets;
}

// Cuts the buckets of a version, which it holds, into chunks.
class BucketCutter {
 public:
  BucketCutter(std::shared_ptr<const WeightVersion> version, std::vector<uint32_t> buckets,
               uint32_t chunk_bytes)
      : version_(std::move(version)), buckets_(std::move(buckets)), chunk_bytes_(chunk_bytes) {}

  absl::StatusOr<bool> operator()(v1::BucketChunk* chunk) {
    if (next_ == buckets_.size()) return false;
    const uint32_t bucket = buckets_[next_];
    const std::vector<std::byte>& bytes = *version_->buckets()[bucket];
    const size_t size = std::min<size_t>(chunk_bytes_, bytes.size() - offset_);
    chunk->set_bucket(bucket);
    chunk->set_offset_bytes(offset_);
    chunk->set_payload(reinterpret_cast<const char*>(bytes.data()) + offset_, size);
    offset_ += size;
    if (offset_ == bytes.size()) {
      offset_ = 0;
      ++next_;
    }
    return true;
  }

 private:
  std::shared_ptr<const WeightVersion> version_;
  std::vector<uint32_t> buckets_;
  uint32_t chunk_bytes_;
  size_t next_ = 0;      // index into buckets_
  uint64_t offset_ = 0;  // in that bucket
};

// Cuts the model files, which it holds, into chunks.
class ModelFileCutter {
 public:
  ModelFileCutter(std::shared_ptr<const ModelFileSource::Served> served, uint32_t chunk_bytes)
      : served_(std::move(served)), chunk_bytes_(chunk_bytes), file_(served_->files.begin()) {}

  absl::StatusOr<bool> operator()(v1::FileChunk* chunk) {
    if (file_ == served_->files.end()) return false;
    const auto& [name, bytes] = *file_;
    const size_t size = std::min<size_t>(chunk_bytes_, bytes.size() - offset_);
    chunk->set_name(name);
    chunk->set_offset_bytes(offset_);
    chunk->set_size_bytes(bytes.size());
    chunk->set_xxh3(served_->xxh3.at(name));
    chunk->set_payload(bytes.data() + offset_, size);
    offset_ += size;
    if (offset_ == bytes.size()) {
      offset_ = 0;
      ++file_;
    }
    return true;
  }

 private:
  std::shared_ptr<const ModelFileSource::Served> served_;
  uint32_t chunk_bytes_;
  ModelFiles::const_iterator file_;
  uint64_t offset_ = 0;  // in that file
};

}  // namespace

WeightServiceImpl::WeightServiceImpl(const WeightServiceOptions& options) : options_(options) {
  SetChunkBytes(options.chunk_bytes);
}

void WeightServiceImpl::SetChunkBytes(uint32_t chunk_bytes) {
  chunk_bytes_.store(std::clamp<uint32_t>(chunk_bytes, 1, kLargestChunkBytes));
}

grpc::ServerWriteReactor<v1::BucketChunk>* WeightServiceImpl::PullBuckets(
    grpc::CallbackServerContext*, const v1::PullBucketsRequest* request) {
  auto* reply = new rpc::StreamReply<v1::BucketChunk>(
      {.metrics = options_.metrics, .method = "PullBuckets", .longest = options_.longest_stream});
  auto version = options_.source->Find(request->run_id(), request->timeline(), request->version());
  absl::Status status = version.status();
  if (status.ok()) {
    auto buckets = AskedBuckets(*request, (*version)->buckets().size());
    status = buckets.status();
    if (status.ok()) {
      reply->Begin(BucketCutter(*std::move(version), *std::move(buckets), chunk_bytes_.load()));
    }
  }
  if (!status.ok()) reply->Refuse(status);
  return reply;
}

grpc::ServerUnaryReactor* WeightServiceImpl::GetBaseManifest(
    grpc::CallbackServerContext* context, const v1::GetBaseManifestRequest* request,
    v1::Manifest* reply) {
  return rpc::Reply(context, options_.metrics, "GetBaseManifest", [&]() -> absl::Status {
    if (options_.model_files == nullptr) {
      return absl::UnimplementedError("no model is served here");
    }
    // The base is there before the model files are.
    TEMPER_RETURN_IF_ERROR(options_.model_files->Find(request->run_id()).status());
    const std::shared_ptr<const WeightVersion> base = options_.source->base();
    if (base == nullptr) return absl::NotFoundError("this run trains the whole model");
    *reply = base->manifest();
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::FileChunk>* WeightServiceImpl::PullModelFiles(
    grpc::CallbackServerContext*, const v1::PullModelFilesRequest* request) {
  auto* reply = new rpc::StreamReply<v1::FileChunk>({.metrics = options_.metrics,
                                                     .method = "PullModelFiles",
                                                     .longest = options_.longest_stream});
  if (options_.model_files == nullptr) {
    reply->Refuse(absl::UnimplementedError("no model files are served here"));
    return reply;
  }
  auto served = options_.model_files->Find(request->run_id());
  if (served.ok()) {
    reply->Begin(ModelFileCutter(*std::move(served), chunk_bytes_.load()));
  } else {
    reply->Refuse(served.status());
  }
  return reply;
}

}  // namespace temper::weights
