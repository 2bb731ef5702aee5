#include "weights/version_assembler.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/base/status_macros.h"

namespace temper::weights {

VersionAssembler::VersionAssembler(v1::Manifest manifest, std::vector<Bucket> buckets)
    : manifest_(std::move(manifest)), buckets_(std::move(buckets)) {}

absl::StatusOr<std::unique_ptr<VersionAssembler>> VersionAssembler::Create(
    v1::Manifest manifest, const ManifestLimits& limits) {
  TEMPER_RETURN_IF_ERROR(ValidateManifest(manifest, limits));
  std::vector<Bucket> buckets;
  for (const v1::Bucket& bucket : manifest.buckets()) {
    buckets.push_back({.bytes = std::make_shared<std::vector<std::byte>>(bucket.size_bytes())});
  }
  return std::unique_ptr<VersionAssembler>(
      new VersionAssembler(std::move(manifest), std::move(buckets)));
}

absl::Status VersionAssembler::AddChunk(uint32_t bucket, uint64_t offset_bytes,
                                        std::string_view payload) {
  if (bucket >= buckets_.size()) {
    return absl::DataLossError(
        absl::StrCat("a chunk of bucket ", bucket, ", the version has ", buckets_.size()));
  }
  Bucket& target = buckets_[bucket];
  if (target.verified) {
    return absl::DataLossError(absl::StrCat("a chunk of bucket ", bucket, ", which is complete"));
  }
  if (offset_bytes == 0) target.filled_bytes = 0;
  if (payload.empty() || offset_bytes != target.filled_bytes ||
      payload.size() > target.bytes->size() - target.filled_bytes) {
    return absl::DataLossError(absl::StrCat("a chunk of ", payload.size(), " bytes at ",
                                            offset_bytes, " of bucket ", bucket, ", which has ",
                                            target.filled_bytes, " of ", target.bytes->size()));
  }
  std::memcpy(target.bytes->data() + offset_bytes, payload.data(), payload.size());
  target.filled_bytes += payload.size();
  if (target.filled_bytes < target.bytes->size()) return absl::OkStatus();
  return FinishBucket(bucket);
}

std::span<std::byte> VersionAssembler::MutableBucket(uint32_t bucket) {
  TEMPER_CHECK(bucket < buckets_.size() && !buckets_[bucket].verified,
               "only a missing bucket may be written");
  return *buckets_[bucket].bytes;
}

absl::Status VersionAssembler::FinishBucket(uint32_t bucket) {
  TEMPER_CHECK(bucket < buckets_.size(), "the bucket exists");
  Bucket& target = buckets_[bucket];
  const absl::Status status = VerifyBucket(manifest_, bucket, *target.bytes);
  target.verified = status.ok();
  target.filled_bytes = status.ok() ? target.bytes->size() : 0;
  return status;
}

std::vector<uint32_t> VersionAssembler::Missing() const {
  std::vector<uint32_t> missing;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (!buckets_[i].verified) missing.push_back(static_cast<uint32_t>(i));
  }
  return missing;
}

absl::StatusOr<std::shared_ptr<const WeightVersion>> VersionAssembler::Finish() {
  const std::vector<uint32_t> missing = Missing();
  if (buckets_.empty() || !missing.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("version ", manifest_.version(), " misses ",
                                                      missing.size(), " of ", buckets_.size(),
                                                      " buckets"));
  }
  std::vector<SharedBucket> whole;
  for (Bucket& bucket : buckets_) whole.push_back(std::move(bucket.bytes));
  buckets_.clear();
  // Every bucket was verified when it came in, so it need not be hashed again.
  return std::shared_ptr<const WeightVersion>(
      new WeightVersion(std::move(manifest_), std::move(whole)));
}

}  // namespace temper::weights
