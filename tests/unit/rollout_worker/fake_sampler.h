#pragma once

// A sampler without a model, whose calls go on for as long as a test wants.

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "rollout_worker/sampler.h"

namespace temper::rollout_worker {

// Samples tokens that are a function of (scope, sample), by the versions its hooks name.
class FakeSampler final : public Sampler {
 public:
  absl::StatusOr<numerics::AqnReport> Install(const weights::WeightVersion& version) override;
  model::InstalledWeights Installed() const override;
  absl::StatusOr<model::GenerateResult> Generate(const model::GenerateRequest& request,
                                                 const model::GenerateHooks& hooks) override;

  // Generate goes on, step after step, until its hook swaps or cancels.
  void NeverEnd();
  // Generate does not ask for its weights before this version, or a newer one, is installed.
  void BeginAfter(uint64_t version);
  void FailOnce(absl::Status status);
  // Waits until a Generate that never ends has begun; false after 20 s.
  bool AwaitRunning() const;
  int cancelled() const;

 private:
  mutable absl::Mutex mutex_;
  model::InstalledWeights installed_ ABSL_GUARDED_BY(mutex_);
  bool endless_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t begin_after_ ABSL_GUARDED_BY(mutex_) = 0;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace temper::rollout_worker
