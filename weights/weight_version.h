#pragma once

// One weight version: its manifest and the bytes it describes, immutable once made.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "temper/v1/weights.pb.h"
#include "weights/bucket_plan.h"

namespace temper::weights {

// The bytes of a bucket. Shared by the versions and the sends in flight that use them.
using SharedBucket = std::shared_ptr<const std::vector<std::byte>>;

// What a received manifest may ask for. Checked before anything is allocated.
struct ManifestLimits {
  uint64_t max_total_bytes = uint64_t{64} << 30;  // of all buckets
  int max_buckets = 1 << 16;
  int max_tensors = 1 << 16;
  size_t max_name_bytes = 512;
};

// XXH3-64 over the bucket hashes as little-endian 64-bit words, in order: the manifest's
// base_weights_hash.
uint64_t BaseWeightsHash(std::span<const uint64_t> bucket_hashes);

// Whether a manifest can be true: within `limits`; every tensor of a known dtype, whole inside its
// bucket, aligned to its element, overlapping no other; names unique and not empty; base hash that
// of the bucket hashes. It says nothing about bytes.
// Errors: InvalidArgument, naming the tensor or bucket and both values; ResourceExhausted if a
// limit is exceeded.
absl::Status ValidateManifest(const v1::Manifest& manifest, const ManifestLimits& limits = {});

// Whether `bytes` are bucket `bucket` of the manifest.
// Errors: DataLoss, with both sizes or both hashes; InvalidArgument for a bucket it does not have.
absl::Status VerifyBucket(const v1::Manifest& manifest, uint32_t bucket,
                          std::span<const std::byte> bytes);

// Thread-safe (immutable). Owns the manifest and shares the buckets.
class WeightVersion final {
 public:
  // Takes bytes that belong to `manifest`: it is validated and every bucket is hashed and compared.
  // Errors: those of ValidateManifest and VerifyBucket.
  static absl::StatusOr<std::shared_ptr<const WeightVersion>> Create(
      v1::Manifest manifest, std::vector<SharedBucket> buckets, const ManifestLimits& limits = {});

  const v1::Manifest& manifest() const { return manifest_; }
  std::span<const SharedBucket> buckets() const { return buckets_; }

  // The same version with another epoch in its manifest; shares the bytes.
  std::shared_ptr<const WeightVersion> WithCommEpoch(uint64_t comm_epoch) const;

  // A tensor's bytes, row-major, valid as long as this version. NotFound names the tensor.
  absl::StatusOr<std::span<const std::byte>> Tensor(std::string_view name) const;

 private:
  friend class VersionAssembler;
  WeightVersion(v1::Manifest manifest, std::vector<SharedBucket> buckets);
  const v1::Manifest manifest_;
  const std::vector<SharedBucket> buckets_;
  std::map<std::string_view, std::span<const std::byte>> tensors_;  // keys point into manifest_
};

// A tensor to publish. The bytes are copied by BuildVersion and need not live longer.
struct PublishedTensor {
  TensorSpec spec;
  std::span<const std::byte> bytes;
};

// The numbers of a version that are not its bytes.
struct VersionHeader {
  std::string run_id;
  uint64_t timeline = 0;
  uint64_t version = 0;            // policy_version: number of closed steps
  double aqn_sigma = 0.0;          // before layer multipliers
  uint64_t aqn_step = 0;           // t of the schedule
  uint64_t noise_id = 0;           // fingerprint of error policy and AQN
  std::string source_address;      // "host:port" of the WeightService that serves the bytes
  uint64_t comm_epoch = 0;         // broadcast group that carries it; 0: none, pull it
  uint64_t model_files_hash = 0;   // ModelFilesHash of what the learner serves beside it
  uint64_t adapted_base_hash = 0;  // of adapters: their base's base_weights_hash; 0: a whole model
};

// Cuts, copies and hashes the tensors of a version (the learner's side).
// Errors: InvalidArgument as PlanBuckets, or if a tensor's bytes are not as many as its shape says.
absl::StatusOr<std::shared_ptr<const WeightVersion>> BuildVersion(
    const VersionHeader& header, std::span<const PublishedTensor> tensors, uint64_t bucket_bytes);

}  // namespace temper::weights
