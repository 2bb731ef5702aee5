#include "reward_server/batch_scorer.h"

#include <utility>

#include "services/base/text.h"

namespace temper::reward_server {
namespace {

// How long an idle scoring thread waits before it looks again; only bounds the wait.
constexpr absl::Duration kIdleWait = absl::Seconds(60);

}  // namespace

SampleOutcome ScoreSample(const Batch& batch, const Sample& sample, absl::Time now) {
  if (now > batch.arrival + batch.sample_timeout) {
    return {.status = absl::DeadlineExceededError(
                base::Cat("not scored within ", absl::FormatDuration(batch.sample_timeout)))};
  }
  return {.status = absl::OkStatus(),
          .scores = ScoreAll(sample.tail, sample.truth),
          .overlong_penalty = OverlongPenalty(sample.completion_tokens, batch.overlong)};
}

absl::StatusOr<std::unique_ptr<BatchScorer>> BatchScorer::Create(
    const BatchScorerOptions& options) {
  if (options.threads < 1 || options.threads > 64) {
    return absl::InvalidArgumentError(
        base::Cat("the number of scoring threads is ", options.threads, "; 1 to 64 is needed"));
  }
  if (options.queued_batches < 1) {
    return absl::InvalidArgumentError("the queue of batches needs room for one at least");
  }
  return std::unique_ptr<BatchScorer>(new BatchScorer(options));
}

BatchScorer::BatchScorer(const BatchScorerOptions& options)
    : metrics_(options.metrics),
      clock_(options.clock),
      queue_(options.queued_batches, options.clock) {
  for (int i = 0; i < options.threads; ++i) {
    threads_.emplace_back([this] { ScoreUntilClosed(); });
  }
}

absl::Status BatchScorer::Submit(Batch batch, Done done) {
  const absl::Status pushed =
      queue_.Push({.batch = std::move(batch), .done = std::move(done)}, absl::InfinitePast());
  metrics_->queued_batches.Set(static_cast<double>(queue_.size()));
  if (pushed.ok()) return pushed;
  return absl::UnavailableError(
      base::Cat("the reward server takes no batch now: ", pushed.message()));
}

void BatchScorer::Close() {
  queue_.Close();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void BatchScorer::ScoreUntilClosed() {
  while (true) {
    auto job = queue_.Pop(clock_->Now() + kIdleWait);
    if (absl::IsCancelled(job.status())) return;
    if (!job.ok()) continue;
    metrics_->queued_batches.Set(static_cast<double>(queue_.size()));
    std::vector<SampleOutcome> outcomes;
    outcomes.reserve(job->batch.samples.size());
    for (const Sample& sample : job->batch.samples) {
      outcomes.push_back(ScoreSample(job->batch, sample, clock_->Now()));
      const SampleOutcome& outcome = outcomes.back();
      metrics_->Count(outcome.status.ok() ? &outcome.scores : nullptr);
    }
    job->done(job->batch, outcomes);
    metrics_->score_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - job->batch.arrival));
  }
}

}  // namespace temper::reward_server
