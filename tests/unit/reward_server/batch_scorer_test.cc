#include "reward_server/batch_scorer.h"

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "reward_server/answer_extraction.h"
#include "tests/support/fake_clock.h"
#include "tests/support/status_matchers.h"

namespace temper::reward_server {
namespace {

using temper::testing::FakeClock;
using temper::testing::IsOk;
using temper::testing::StatusIs;
using ::testing::HasSubstr;

class BatchScorerTest : public ::testing::Test {
 protected:
  std::unique_ptr<BatchScorer> Make(size_t queued_batches = 8) {
    auto scorer = BatchScorer::Create(
        {.threads = 1, .queued_batches = queued_batches, .metrics = &metrics_, .clock = &clock_});
    EXPECT_THAT(scorer, IsOk());
    return *std::move(scorer);
  }
  Batch OneSample(const std::string& text = "#### 18") {
    return {.overlong = {.max_completion_tokens = 10, .cache_tokens = 4, .factor = 1},
            .arrival = clock_.Now(),
            .sample_timeout = absl::Seconds(5),
            .samples = {{.tail = text, .truth = "18", .completion_tokens = 8}}};
  }

  FakeClock clock_;
  metrics::MetricsRegistry registry_;
  RewardMetrics metrics_{&registry_};
};

TEST_F(BatchScorerTest, ScoresEverySampleInOrder) {
  const auto scorer = Make();
  Batch batch = OneSample();
  batch.samples.push_back({.tail = "no idea", .truth = "18", .completion_tokens = 2});
  std::vector<SampleOutcome> seen;
  absl::Notification done;
  EXPECT_THAT(scorer->Submit(batch,
                             [&](const Batch&, const auto& outcomes) {
                               seen = outcomes;
                               done.Notify();
                             }),
              IsOk());
  done.WaitForNotification();
  ASSERT_EQ(seen.size(), 2);
  EXPECT_EQ(seen[0].scores.strict.score, 1);
  EXPECT_EQ(seen[0].overlong_penalty, -0.5);
  EXPECT_EQ(seen[1].scores.strict.score, 0);
  EXPECT_EQ(seen[1].overlong_penalty, 0);
  scorer->Close();
  const std::string text = registry_.Serialize();
  EXPECT_THAT(text,
              HasSubstr("temper_reward_samples_total{outcome=\"correct\",rule=\"strict\"} 1"));
  EXPECT_THAT(text, HasSubstr("outcome=\"no_answer\",rule=\"numeric\"} 1"));
  EXPECT_THAT(text, HasSubstr("temper_reward_score_seconds_count 1"));
}

TEST_F(BatchScorerTest, ASampleOverItsDeadlineHasAStatusAndNoScore) {
  const Batch batch = OneSample();
  EXPECT_THAT(ScoreSample(batch, batch.samples[0], batch.arrival + absl::Seconds(5)).status,
              IsOk());
  const SampleOutcome late =
      ScoreSample(batch, batch.samples[0], batch.arrival + absl::Seconds(5.001));
  EXPECT_THAT(late.status, StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("5s")));
  EXPECT_EQ(late.scores.strict.score, 0);
}

TEST_F(BatchScorerTest, TheDeadlineRunsWhileABatchWaitsInTheQueue) {
  const auto scorer = Make();
  absl::Notification first_runs, release, second_done;
  ASSERT_THAT(scorer->Submit(OneSample(),
                             [&](const Batch&, const auto&) {
                               first_runs.Notify();
                               release.WaitForNotification();
                             }),
              IsOk());
  first_runs.WaitForNotification();
  absl::Status second;
  ASSERT_THAT(scorer->Submit(OneSample(),
                             [&](const Batch&, const auto& outcomes) {
                               second = outcomes[0].status;
                               second_done.Notify();
                             }),
              IsOk());
  clock_.Advance(absl::Seconds(6));
  release.Notify();
  second_done.WaitForNotification();
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(BatchScorerTest, AFullQueueRefusesAndACloseFinishesWhatWasTaken) {
  const auto scorer = Make(/*queued_batches=*/1);
  absl::Notification first_runs, release;
  int done = 0;
  ASSERT_THAT(scorer->Submit(OneSample(),
                             [&](const Batch&, const auto&) {
                               first_runs.Notify();
                               release.WaitForNotification();
                               ++done;
                             }),
              IsOk());
  first_runs.WaitForNotification();
  const auto count = [&](const Batch&, const auto&) { ++done; };
  EXPECT_THAT(scorer->Submit(OneSample(), count), IsOk());
  EXPECT_THAT(scorer->Submit(OneSample(), count), StatusIs(absl::StatusCode::kUnavailable));
  release.Notify();
  scorer->Close();
  EXPECT_EQ(done, 2);
  EXPECT_THAT(scorer->Submit(OneSample(), count), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(BatchScorerTest, OptionsOutOfRangeAreRefused) {
  EXPECT_THAT(BatchScorer::Create({.threads = 0, .metrics = &metrics_}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(BatchScorer::Create({.queued_batches = 0, .metrics = &metrics_}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace temper::reward_server
