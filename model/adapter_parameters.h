#pragma once

// Low-rank adapters as tensors beside a frozen model.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/io/lora_spec.h"
#include "model/io/tensor_data.h"
#include "model/parameters.h"

namespace temper::model {

// `base` with fresh adapters; the base's tensors are shared. A is uniform in +-1 / sqrt(in), as
// peft draws it, and B is 0, so that the policy begins as the base. Every number is keyed by
// (base::Purpose::kWeightInit, seed, scope 1), site = numerics::AdapterSite of the module, element
// = flat index: a module's A does not depend on which others there are.
// Errors: InvalidArgument if `spec` has a linear that the model has not.
absl::StatusOr<Parameters> WithFreshAdapter(const Parameters& base, const LoraSpec& spec,
                                            uint64_t seed);

// The same with the adapters that were read from a file, or, with none given, all zero: memory to
// receive a version into. Errors also: InvalidArgument, by name, unless `tensors` are exactly
// LoraTensors(spec).
absl::StatusOr<Parameters> WithAdapter(const Parameters& base, const LoraSpec& spec,
                                       const TensorMap& tensors);
absl::StatusOr<Parameters> WithZeroAdapter(const Parameters& base, const LoraSpec& spec);

// Memory for another version of `parameters`: with adapters, zero ones on the same base; without,
// a zero model. Errors as above.
absl::StatusOr<Parameters> ZeroLike(const Parameters& parameters);

}  // namespace temper::model
