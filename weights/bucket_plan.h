#pragma once

// How the tensors of a weight version are cut into buckets: the unit that is hashed, sent and
// received. Pure functions, thread-safe. No tensor library: a tensor is a name, a shape and bytes.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace temper::weights {

// What a tensor is, without its bytes.
struct TensorSpec {
  std::string name;            // Hugging Face name, model.layers.0.self_attn.q_proj.weight
  std::vector<int64_t> shape;  // every extent > 0; at most kMaxRank of them; empty: a scalar
  std::string dtype;           // "float32" or "bfloat16"
};
inline constexpr size_t kMaxRank = 8;

// Bytes of one element of `dtype`; 0 for a name that is no storage type of ours.
uint64_t DtypeBytes(std::string_view dtype);

// Bytes of the whole tensor, row-major and dense.
// Errors: InvalidArgument for an unknown dtype, an extent <= 0, too many extents, or a product that
// does not fit 63 bits.
absl::StatusOr<uint64_t> TensorBytes(const TensorSpec& tensor);

// Where a tensor lies.
struct Placement {
  uint32_t bucket = 0;
  uint64_t offset_bytes = 0;  // in the bucket; a multiple of kTensorAlignment
  uint64_t size_bytes = 0;
};

// Tensors begin at multiples of this in their bucket, so that vector loads of a mapped bucket are
// aligned relative to its start. Bytes between tensors are zero.
inline constexpr uint64_t kTensorAlignment = 64;

struct BucketPlan {
  std::vector<Placement> placements;   // one per tensor, in the order given
  std::vector<uint64_t> bucket_bytes;  // size of each bucket; none is empty
};

// Fills buckets in the order given: a tensor begins a new bucket when the current one is not empty
// and would grow beyond `bucket_bytes`. A tensor is never cut, so one larger than `bucket_bytes`
// has a bucket of its own. Equal arguments give equal plans, on every machine.
// Errors: InvalidArgument for no tensors, bucket_bytes 0, a bad tensor, or two of one name.
absl::StatusOr<BucketPlan> PlanBuckets(std::span<const TensorSpec> tensors, uint64_t bucket_bytes);

}  // namespace temper::weights
