#include "weights/weight_service.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "services/rpc/status.h"

namespace temper::weights {
namespace {

constexpr uint32_t kLargestChunkBytes = 32 << 20;  // below gRPC's message limit with room to spare

// Writes one chunk at a time; gRPC calls OnWriteDone when it may have the next. Owns itself until
// OnDone.
class ChunkStream final : public grpc::ServerWriteReactor<v1::BucketChunk> {
 public:
  ChunkStream(std::shared_ptr<const WeightVersion> version, std::vector<uint32_t> buckets,
              const WeightServiceOptions& options)
      : version_(std::move(version)), buckets_(std::move(buckets)), options_(options) {
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::UnavailableError("the puller is gone"));
    WriteNext();
  }
  void OnCancel() override { cancelled_.store(true); }
  void OnDone() override {
    if (options_.metrics != nullptr) {
      options_.metrics->RecordServer("PullBuckets", result_.code(), absl::Now() - begun_);
    }
    delete this;
  }

 private:
  void End(const absl::Status& status) {
    result_ = status;
    Finish(rpc::ToGrpcStatus(status));
  }

  void WriteNext() {
    if (cancelled_.load()) return End(absl::CancelledError("the puller gave up"));
    if (next_ == buckets_.size()) return End(absl::OkStatus());
    if (absl::Now() - begun_ > options_.longest_stream) {
      return End(absl::DeadlineExceededError("the puller was too slow"));
    }
    const uint32_t bucket = buckets_[next_];
    const std::vector<std::byte>& bytes = *version_->buckets()[bucket];
    const size_t size = std::min<size_t>(options_.chunk_bytes, bytes.size() - offset_);
    chunk_.set_bucket(bucket);
    chunk_.set_offset_bytes(offset_);
    chunk_.set_payload(reinterpret_cast<const char*>(bytes.data()) + offset_, size);
    offset_ += size;
    if (offset_ == bytes.size()) {
      offset_ = 0;
      ++next_;
    }
    StartWrite(&chunk_);
  }

  const std::shared_ptr<const WeightVersion> version_;
  const std::vector<uint32_t> buckets_;
  const WeightServiceOptions options_;
  const absl::Time begun_ = absl::Now();
  size_t next_ = 0;      // index into buckets_
  uint64_t offset_ = 0;  // in that bucket
  v1::BucketChunk chunk_;
  absl::Status result_;
  std::atomic<bool> cancelled_ = false;
};

// A stream that ends with its status before the first chunk.
class Refusal final : public grpc::ServerWriteReactor<v1::BucketChunk> {
 public:
  explicit Refusal(const absl::Status& status) { Finish(rpc::ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

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

}  // namespace

WeightServiceImpl::WeightServiceImpl(const WeightServiceOptions& options) : options_(options) {
  SetChunkBytes(options.chunk_bytes);
}

void WeightServiceImpl::SetChunkBytes(uint32_t chunk_bytes) {
  chunk_bytes_.store(std::clamp<uint32_t>(chunk_bytes, 1, kLargestChunkBytes));
}

grpc::ServerWriteReactor<v1::BucketChunk>* WeightServiceImpl::PullBuckets(
    grpc::CallbackServerContext*, const v1::PullBucketsRequest* request) {
  auto version = options_.source->Find(request->run_id(), request->timeline(), request->version());
  if (!version.ok()) return new Refusal(version.status());
  auto buckets = AskedBuckets(*request, (*version)->buckets().size());
  if (!buckets.ok()) return new Refusal(buckets.status());
  WeightServiceOptions options = options_;
  options.chunk_bytes = chunk_bytes_.load();
  return new ChunkStream(*std::move(version), *std::move(buckets), options);
}

}  // namespace temper::weights
