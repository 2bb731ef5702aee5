#pragma once

// The learner's shelf of versions: what WeightService serves from.

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "weights/broadcaster.h"
#include "weights/weight_version.h"

namespace temper::weights {

// Keeps the newest kKept versions; a version dropped from the shelf lives on while a stream still
// sends it. Thread-safe. The root side of the pulled (gRPC) back end.
class WeightSource final : public BroadcastRoot {
 public:
  // Two: the newest, and the one that a worker may still be pulling when it comes out.
  static constexpr size_t kKept = 2;

  // Puts `version` on the shelf before its manifest is made known. The same (timeline, version)
  // again replaces it; another timeline empties the shelf first.
  void Publish(std::shared_ptr<const WeightVersion> version);

  // The frozen base of a run that trains adapters, kept beside the shelf: its manifest names
  // timeline 0, which no version has. Call it before the first worker can ask.
  void SetBase(std::shared_ptr<const WeightVersion> base);
  // Null: the run trains the whole model, or its policy has not been read yet.
  std::shared_ptr<const WeightVersion> base() const;

  // The base for its own timeline. Errors: Aborted if the shelf holds another run or timeline;
  // NotFound if the version is not on it (too old, or not out yet), naming those that are.
  absl::StatusOr<std::shared_ptr<const WeightVersion>> Find(std::string_view run_id,
                                                            uint64_t timeline,
                                                            uint64_t version) const;

  // Publish under the seam's name; never waits.
  absl::Status Send(std::shared_ptr<const WeightVersion> version, absl::Time deadline) override;
  void Abort(std::string_view reason) override;

 private:
  mutable absl::Mutex mutex_;
  std::deque<std::shared_ptr<const WeightVersion>> versions_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const WeightVersion> base_ ABSL_GUARDED_BY(mutex_);
  std::string abort_reason_ ABSL_GUARDED_BY(mutex_);  // empty: not aborted
};

}  // namespace temper::weights
