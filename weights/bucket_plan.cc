#include "weights/bucket_plan.h"

#include <limits>
#include <set>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"

namespace temper::weights {
namespace {

constexpr uint64_t kMaxTensorBytes = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

uint64_t AlignUp(uint64_t bytes) {
  return (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

}  // namespace

uint64_t DtypeBytes(std::string_view dtype) {
  if (dtype == "float32") return 4;
  if (dtype == "bfloat16") return 2;
  return 0;
}

absl::StatusOr<uint64_t> TensorBytes(const TensorSpec& tensor) {
  uint64_t bytes = DtypeBytes(tensor.dtype);
  if (bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " has dtype \"",
                                                   tensor.dtype,
                                                   "\"; float32 and bfloat16 are known"));
  }
  if (tensor.shape.size() > kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", tensor.name, " has ", tensor.shape.size(), " extents, more than ", kMaxRank));
  }
  for (const int64_t extent : tensor.shape) {
    if (extent <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, " has an extent of ", extent));
    }
    if (static_cast<uint64_t>(extent) > kMaxTensorBytes / bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, " is larger than 2^63 bytes"));
    }
    bytes *= static_cast<uint64_t>(extent);
  }
  return bytes;
}

absl::StatusOr<BucketPlan> PlanBuckets(std::span<const TensorSpec> tensors, uint64_t bucket_bytes) {
  if (tensors.empty()) return absl::InvalidArgumentError("a version without tensors");
  if (bucket_bytes == 0) return absl::InvalidArgumentError("bucket_bytes is 0");
  BucketPlan plan;
  std::set<std::string_view> names;
  for (const TensorSpec& tensor : tensors) {
    if (tensor.name.empty()) return absl::InvalidArgumentError("a tensor has no name");
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tensors are called ", tensor.name));
    }
    TEMPER_ASSIGN_OR_RETURN(const uint64_t size, TensorBytes(tensor));
    const bool begins_bucket =
        plan.bucket_bytes.empty() || AlignUp(plan.bucket_bytes.back()) + size > bucket_bytes;
    if (begins_bucket) plan.bucket_bytes.push_back(0);
    uint64_t& filled = plan.bucket_bytes.back();
    const uint64_t offset = AlignUp(filled);
    plan.placements.push_back({.bucket = static_cast<uint32_t>(plan.bucket_bytes.size() - 1),
                               .offset_bytes = offset,
                               .size_bytes = size});
    filled = offset + size;
  }
  return plan;
}

}  // namespace temper::weights
