#pragma once

// Weight versions for tests: keyed bytes, so that equal arguments give equal versions.

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "services/base/random_key.h"
#include "weights/weight_version.h"

namespace temper::weights {

struct TestTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// By default several buckets of several sizes at 4 KiB a bucket.
inline std::vector<TestTensor> DefaultTensors() {
  return {{"embed", {64, 12}}, {"layers.0.q", {33, 7}},  {"layers.0.norm", {5}},
          {"head", {40, 40}},  {"layers.1.q", {100, 9}}, {"layers.1.norm", {1}}};
}

inline std::shared_ptr<const WeightVersion> MakeTestVersion(
    VersionHeader header, uint64_t bucket_bytes = 4096,
    const std::vector<TestTensor>& tensors = DefaultTensors()) {
  if (header.run_id.empty()) header.run_id = "run";
  if (header.timeline == 0) header.timeline = 1;
  std::vector<std::vector<std::byte>> bytes;
  std::vector<PublishedTensor> published;
  for (const TestTensor& tensor : tensors) {
    size_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= static_cast<size_t>(extent);
    std::vector<std::byte>& own = bytes.emplace_back(4 * elements);
    for (size_t i = 0; i < own.size(); ++i) {
      own[i] = static_cast<std::byte>(
          base::UniformBelow(1000 * header.version + bytes.size(), static_cast<uint32_t>(i), 256));
    }
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    published.push_back(
        {.spec = {tensors[i].name, tensors[i].shape, "float32"}, .bytes = bytes[i]});
  }
  return *BuildVersion(header, published, bucket_bytes);
}

}  // namespace temper::weights
