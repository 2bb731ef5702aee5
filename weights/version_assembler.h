#pragma once

// The shadow copy: a version on its way in. Nothing samples from it; it becomes a WeightVersion
// only when every bucket has been verified.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "temper/v1/weights.pb.h"
#include "weights/weight_version.h"

namespace temper::weights {

// Thread-compatible: one receiving thread. Owns the buckets until Finish.
//
// Each bucket goes empty -> filling -> verified. A chunk is taken only at the place where the
// bucket's bytes end so far, so a lost, repeated or foreign chunk is seen at once.
class VersionAssembler final {
 public:
  // Allocates the buckets a valid manifest describes.
  // Errors: those of ValidateManifest.
  static absl::StatusOr<std::unique_ptr<VersionAssembler>> Create(
      v1::Manifest manifest, const ManifestLimits& limits = {});

  const v1::Manifest& manifest() const { return manifest_; }

  // Adds the next bytes of a bucket, and verifies it when it is full. Offset 0 begins an
  // unverified bucket afresh.
  // Errors: DataLoss for a chunk that does not begin where the bucket ends, runs over its end, is
  // empty, belongs to no bucket or to a verified one, or for a full bucket of another hash (which
  // is then empty again).
  absl::Status AddChunk(uint32_t bucket, uint64_t offset_bytes, std::string_view payload);

  // For broadcasters that write a whole bucket at once: its memory, to be filled and then verified
  // by FinishBucket. bucket < manifest().buckets_size(), not verified yet.
  std::span<std::byte> MutableBucket(uint32_t bucket);
  // Errors: DataLoss if the bytes have another hash; the bucket is then empty again.
  absl::Status FinishBucket(uint32_t bucket);

  // Buckets that are not verified yet, in order: what a further try has to bring.
  std::vector<uint32_t> Missing() const;

  // The complete version; the assembler is empty afterwards.
  // Errors: FailedPrecondition while a bucket is missing.
  absl::StatusOr<std::shared_ptr<const WeightVersion>> Finish();

 private:
  struct Bucket {
    std::shared_ptr<std::vector<std::byte>> bytes;
    uint64_t filled_bytes = 0;
    bool verified = false;
  };
  VersionAssembler(v1::Manifest manifest, std::vector<Bucket> buckets);
  v1::Manifest manifest_;
  std::vector<Bucket> buckets_;
};

}  // namespace temper::weights
