#pragma once

// Scores batches on a few threads, with a deadline for each sample. No gRPC.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "reward_server/reward_metrics.h"
#include "reward_server/scoring.h"
#include "services/base/bounded_queue.h"
#include "services/base/clock.h"

namespace temper::reward_server {

// Limits of one batch. A longer truth is no number; a completion is cut to its tail on arrival.
inline constexpr size_t kMaxSamples = 4096;
inline constexpr size_t kMaxCompletionBytes = size_t{1} << 20;
inline constexpr size_t kMaxTruthBytes = 1024;

struct Sample {
  std::string tail;  // Tail of the completion: the rules look at nothing else
  std::string truth;
  int64_t completion_tokens = 0;  // with end-of-sequence
};

struct Batch {
  Rule rule = Rule::kStrict;  // the one that is the reward
  OverlongOptions overlong;
  absl::Time arrival;
  absl::Duration sample_timeout;  // each sample has to be scored so long after `arrival`
  std::vector<Sample> samples;
};

struct SampleOutcome {
  absl::Status status;  // DeadlineExceeded: no scores below
  RuleScores scores;
  double overlong_penalty = 0;  // <= 0
};

// The score of one sample at `now`. The deadline is looked at before scoring; scoring itself reads
// at most kMaxTailBytes and kMaxTruthBytes, so it ends within microseconds after any deadline.
// Pure.
SampleOutcome ScoreSample(const Batch& batch, const Sample& sample, absl::Time now);

struct BatchScorerOptions {
  int threads = 2;                   // 1..64
  size_t queued_batches = 256;       // waiting; the next one is refused
  RewardMetrics* metrics = nullptr;  // needed; outlives the scorer
  base::Clock* clock = base::SystemClock();
};

// Owns its threads. Thread-safe. Close, or destruction, scores what is queued and joins.
class BatchScorer final {
 public:
  // One outcome per sample, in order. Called once, on a scoring thread; must not wait.
  using Done = std::function<void(const Batch& batch, const std::vector<SampleOutcome>& outcomes)>;

  // Returns: InvalidArgument if an option is outside its range.
  static absl::StatusOr<std::unique_ptr<BatchScorer>> Create(const BatchScorerOptions& options);
  ~BatchScorer() { Close(); }
  BatchScorer(const BatchScorer&) = delete;
  BatchScorer& operator=(const BatchScorer&) = delete;

  // Takes the batch and returns at once. Returns: Unavailable if the queue is full or closed; then
  // `done` is not called.
  absl::Status Submit(Batch batch, Done done);

  // Takes no more, finishes what was taken, joins. A second call does nothing.
  void Close();

 private:
  struct Job {
    Batch batch;
    Done done;
  };
  explicit BatchScorer(const BatchScorerOptions& options);
  void ScoreUntilClosed();

  RewardMetrics* const metrics_;
  base::Clock* const clock_;
  base::BoundedQueue<Job> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace temper::reward_server
