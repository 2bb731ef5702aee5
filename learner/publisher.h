#pragma once

// Makes weight versions and brings them out.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "learner/orchestrator_link.h"
#include "model/io/loader.h"
#include "model/io/tensor_data.h"
#include "numerics/aqn.h"
#include "weights/broadcaster.h"
#include "weights/group_runner.h"
#include "weights/weight_version.h"

namespace temper::learner {

struct PublisherOptions {
  std::string run_id;
  uint64_t timeline = 0;
  uint64_t incarnation = 0;
  std::string source_address;  // "host:port" of this process's WeightService
  uint64_t noise_id = 0;
  numerics::AqnPlan aqn;
  uint64_t model_files_hash = 0;   // weights::ModelFilesHash of what is served beside the weights
  uint64_t adapted_base_hash = 0;  // base_weights_hash of BuildBase; 0: versions are whole models
  uint64_t bucket_bytes = 32 << 20;
  // An evaluation may hold a version back for as long as it runs; after this it is a fault.
  absl::Duration patience = absl::Hours(24);
};

// Thread-compatible. What it points to outlives it.
class Publisher final {
 public:
  // root: the shelf that workers pull from. group: broadcasts to those that are in a group; null
  // where there is none.
  Publisher(PublisherOptions options, weights::BroadcastRoot* root, OrchestratorLink* orchestrator,
            weights::GroupRunner* group = nullptr)
      : options_(std::move(options)), root_(root), orchestrator_(orchestrator), group_(group) {}

  // Copies the weights into buckets and hashes them; its manifest holds base_weights_hash and the
  // AQN of versions sampled by it. expected: what is trained, in order (model::TrainedTensors);
  // tensors: exactly those, float32.
  absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> Build(
      uint64_t version, const std::vector<model::ExpectedTensor>& expected,
      const model::TensorViewMap& tensors) const;

  // The frozen base of a run that trains adapters, as workers pull it, once each: timeline 0,
  // version 0, no AQN. expected: all tensors of the model.
  static absl::StatusOr<std::shared_ptr<const weights::WeightVersion>> BuildBase(
      const PublisherOptions& options, const std::vector<model::ExpectedTensor>& expected,
      const model::TensorViewMap& tensors);

  // Puts the bytes where workers find them, then makes the manifest known: from then on the version
  // is out. Waits while an evaluation holds it back, never for a broadcast. Errors:
  // DeadlineExceeded or Unavailable after `patience`; Cancelled after a stop; Aborted for another
  // timeline.
  absl::StatusOr<v1::RunState> Publish(std::shared_ptr<const weights::WeightVersion> version);

 private:
  const PublisherOptions options_;
  weights::BroadcastRoot* const root_;
  OrchestratorLink* const orchestrator_;
  weights::GroupRunner* const group_;
};

}  // namespace temper::learner
