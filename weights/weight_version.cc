#include "weights/weight_version.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/hash.h"
#include "services/base/status_macros.h"

namespace temper::weights {
namespace {

TensorSpec SpecOf(const v1::TensorEntry& entry) {
  return {.name = entry.name(),
          .shape = {entry.shape().begin(), entry.shape().end()},
          .dtype = entry.dtype()};
}

// The part of a bucket that a tensor takes.
struct Extent {
  uint32_t bucket;
  uint64_t begin;
  uint64_t end;
  std::string_view name;
};

absl::Status ValidateBuckets(const v1::Manifest& manifest, const ManifestLimits& limits) {
  if (manifest.buckets_size() == 0 || manifest.tensors_size() == 0) {
    return absl::InvalidArgumentError("a manifest without buckets or tensors");
  }
  if (manifest.buckets_size() > limits.max_buckets) {
    return absl::ResourceExhaustedError(absl::StrCat("the manifest has ", manifest.buckets_size(),
                                                     " buckets, the limit is ",
                                                     limits.max_buckets));
  }
  if (manifest.tensors_size() > limits.max_tensors) {
    return absl::ResourceExhaustedError(absl::StrCat("the manifest has ", manifest.tensors_size(),
                                                     " tensors, the limit is ",
                                                     limits.max_tensors));
  }
  uint64_t left = limits.max_total_bytes;
  std::vector<uint64_t> hashes;
  for (const v1::Bucket& bucket : manifest.buckets()) {
    if (bucket.size_bytes() == 0) return absl::InvalidArgumentError("a bucket of no bytes");
    if (bucket.size_bytes() > left) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the manifest's buckets hold more than the limit of ", limits.max_total_bytes, " bytes"));
    }
    left -= bucket.size_bytes();
    hashes.push_back(bucket.xxh3());
  }
  const uint64_t hash = BaseWeightsHash(hashes);
  if (hash != manifest.base_weights_hash()) {
    return absl::InvalidArgumentError(
        absl::StrCat("base_weights_hash is ", base::HexDigest(manifest.base_weights_hash()),
                     ", the hash over the manifest's buckets is ", base::HexDigest(hash)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Extent> ExtentOf(const v1::Manifest& manifest, const v1::TensorEntry& entry) {
  TEMPER_ASSIGN_OR_RETURN(const uint64_t size, TensorBytes(SpecOf(entry)));
  if (entry.bucket() >= static_cast<uint32_t>(manifest.buckets_size())) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", entry.name(), " lies in bucket ",
                                                   entry.bucket(), " of ",
                                                   manifest.buckets_size()));
  }
  const uint64_t bucket_bytes = manifest.buckets(static_cast<int>(entry.bucket())).size_bytes();
  if (size > bucket_bytes || entry.offset_bytes() > bucket_bytes - size) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", entry.name(), " takes ", size, " bytes at ", entry.offset_bytes(),
                     " of bucket ", entry.bucket(), ", which has ", bucket_bytes));
  }
  if (entry.offset_bytes() % DtypeBytes(entry.dtype()) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", entry.name(), " begins at ",
                                                   entry.offset_bytes(), ", inside an element"));
  }
  return Extent{.bucket = entry.bucket(),
                .begin = entry.offset_bytes(),
                .end = entry.offset_bytes() + size,
                .name = entry.name()};
}

}  // namespace

uint64_t BaseWeightsHash(std::span<const uint64_t> bucket_hashes) {
  base::StreamHash hash;
  for (const uint64_t word : bucket_hashes) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(word >> (8 * i));
    hash.Update(bytes, sizeof(bytes));
  }
  return hash.Digest64();
}

absl::Status ValidateManifest(const v1::Manifest& manifest, const ManifestLimits& limits) {
  TEMPER_RETURN_IF_ERROR(ValidateBuckets(manifest, limits));
  std::set<std::string_view> names;
  std::vector<Extent> extents;
  for (const v1::TensorEntry& entry : manifest.tensors()) {
    if (entry.name().empty() || entry.name().size() > limits.max_name_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("a tensor's name has ", entry.name().size(),
                                                     " bytes, 1 to ", limits.max_name_bytes,
                                                     " are allowed"));
    }
    if (!names.insert(entry.name()).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tensors are called ", entry.name()));
    }
    TEMPER_ASSIGN_OR_RETURN(extents.emplace_back(), ExtentOf(manifest, entry));
  }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.bucket, a.begin) < std::pair(b.bucket, b.begin);
  });
  for (size_t i = 1; i < extents.size(); ++i) {
    const Extent& before = extents[i - 1];
    if (extents[i].bucket == before.bucket && extents[i].begin < before.end) {
      return absl::InvalidArgumentError(absl::StrCat("tensors ", std::string(before.name), " and ",
                                                     std::string(extents[i].name),
                                                     " overlap in bucket ", before.bucket));
    }
  }
  return absl::OkStatus();
}

absl::Status VerifyBucket(const v1::Manifest& manifest, uint32_t bucket,
                          std::span<const std::byte> bytes) {
  if (bucket >= static_cast<uint32_t>(manifest.buckets_size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("bucket ", bucket, " of ", manifest.buckets_size()));
  }
  const v1::Bucket& expected = manifest.buckets(static_cast<int>(bucket));
  if (bytes.size() != expected.size_bytes()) {
    return absl::DataLossError(absl::StrCat("version ", manifest.version(), " bucket ", bucket,
                                            " has ", bytes.size(), " bytes, the manifest says ",
                                            expected.size_bytes()));
  }
  const uint64_t hash = base::Hash64(bytes.data(), bytes.size());
  if (hash != expected.xxh3()) {
    return absl::DataLossError(absl::StrCat(
        "version ", manifest.version(), " bucket ", bucket, " has hash ", base::HexDigest(hash),
        ", the manifest says ", base::HexDigest(expected.xxh3())));
  }
  return absl::OkStatus();
}

WeightVersion::WeightVersion(v1::Manifest manifest, std::vector<SharedBucket> buckets)
    : manifest_(std::move(manifest)), buckets_(std::move(buckets)) {
  for (const v1::TensorEntry& entry : manifest_.tensors()) {
    const std::vector<std::byte>& bytes = *buckets_[entry.bucket()];
    // The manifest was validated: the size is known and inside the bucket.
    tensors_.emplace(entry.name(), std::span<const std::byte>(bytes).subspan(
                                       entry.offset_bytes(), *TensorBytes(SpecOf(entry))));
  }
}

absl::StatusOr<std::shared_ptr<const WeightVersion>> WeightVersion::Create(
    v1::Manifest manifest, std::vector<SharedBucket> buckets, const ManifestLimits& limits) {
  TEMPER_RETURN_IF_ERROR(ValidateManifest(manifest, limits));
  if (buckets.size() != static_cast<size_t>(manifest.buckets_size())) {
    return absl::DataLossError(absl::StrCat("version ", manifest.version(), " has ", buckets.size(),
                                            " buckets, the manifest says ",
                                            manifest.buckets_size()));
  }
  for (size_t i = 0; i < buckets.size(); ++i) {
    TEMPER_RETURN_IF_ERROR(VerifyBucket(manifest, static_cast<uint32_t>(i), *buckets[i]));
  }
  return std::shared_ptr<const WeightVersion>(
      new WeightVersion(std::move(manifest), std::move(buckets)));
}

std::shared_ptr<const WeightVersion> WeightVersion::WithCommEpoch(uint64_t comm_epoch) const {
  v1::Manifest manifest = manifest_;
  manifest.set_comm_epoch(comm_epoch);
  return std::shared_ptr<const WeightVersion>(new WeightVersion(std::move(manifest), buckets_));
}

absl::StatusOr<std::span<const std::byte>> WeightVersion::Tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat("version ", manifest_.version(), " has no tensor ", std::string(name)));
  }
  return found->second;
}

absl::StatusOr<std::shared_ptr<const WeightVersion>> BuildVersion(
    const VersionHeader& header, std::span<const PublishedTensor> tensors, uint64_t bucket_bytes) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const PublishedTensor& tensor : tensors) specs.push_back(tensor.spec);
  TEMPER_ASSIGN_OR_RETURN(const BucketPlan plan, PlanBuckets(specs, bucket_bytes));

  std::vector<std::shared_ptr<std::vector<std::byte>>> buckets;
  for (const uint64_t size : plan.bucket_bytes) {
    buckets.push_back(std::make_shared<std::vector<std::byte>>(size));
  }
  v1::Manifest manifest;
  manifest.set_run_id(header.run_id);
  manifest.set_timeline(header.timeline);
  manifest.set_version(header.version);
  manifest.mutable_aqn()->set_sigma(header.aqn_sigma);
  manifest.mutable_aqn()->set_step(header.aqn_step);
  manifest.set_noise_id(header.noise_id);
  manifest.set_source_address(header.source_address);
  manifest.set_comm_epoch(header.comm_epoch);
  manifest.set_model_files_hash(header.model_files_hash);
  manifest.set_adapted_base_hash(header.adapted_base_hash);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Placement& place = plan.placements[i];
    if (tensors[i].bytes.size() != place.size_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", specs[i].name, " has ",
                                                     tensors[i].bytes.size(),
                                                     " bytes, its shape says ", place.size_bytes));
    }
    std::memcpy(buckets[place.bucket]->data() + place.offset_bytes, tensors[i].bytes.data(),
                place.size_bytes);
    v1::TensorEntry& entry = *manifest.add_tensors();
    entry.set_name(specs[i].name);
    entry.mutable_shape()->Add(specs[i].shape.begin(), specs[i].shape.end());
    entry.set_dtype(specs[i].dtype);
    entry.set_bucket(place.bucket);
    entry.set_offset_bytes(place.offset_bytes);
  }
  std::vector<uint64_t> hashes;
  for (const auto& bucket : buckets) {
    hashes.push_back(base::Hash64(bucket->data(), bucket->size()));
    v1::Bucket& entry = *manifest.add_buckets();
    entry.set_size_bytes(bucket->size());
    entry.set_xxh3(hashes.back());
  }
  manifest.set_base_weights_hash(BaseWeightsHash(hashes));
  return WeightVersion::Create(std::move(manifest), {buckets.begin(), buckets.end()});
}

}  // namespace temper::weights
