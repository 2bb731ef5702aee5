#include "learner/step_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "learner/checkpoint.h"
#include "learner/submission_desk.h"
#include "nlohmann/json.hpp"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/member/submission_checksum.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/learner/fake_orchestrator.h"
#include "tests/unit/learner/training_fixture.h"
#include "weights/weight_source.h"

namespace temper::learner {
namespace {

using ::nlohmann::json;
using ::temper::testing::FakeOrchestrator;
using ::temper::testing::IsOk;
using ::temper::testing::MadeUpGroup;
using ::temper::testing::StatusIs;
using ::temper::testing::TinyParameters;
using ::temper::testing::TrainerForTest;

constexpr int kGroups = 2;
constexpr int kSamples = 4;

LearnerOptions OptionsForTest(const std::string& run_dir) {
  LearnerOptions options;
  options.run_dir = run_dir;
  options.config_fingerprint = 5;
  options.admission = {.run_id = "run",
                       .seed = 1,
                       .noise_id = 2,
                       .samples_per_group = kSamples,
                       .max_completion_tokens = 16,
                       .vocab_size = 288};
  options.batch = {.groups_per_step = kGroups, .max_staleness = 0};
  options.total_updates = 3;
  options.learning_rate = 1e-3;
  options.max_grad_norm = 1.0;
  options.bucket_bytes = 1 << 16;
  options.checkpoint_every = 1;
  return options;
}

// The submit of a made-up group sampled by `version`.
v1::SubmitGroupRequest SubmitOf(uint64_t group_index, uint64_t version, bool equal_accuracies) {
  const RolloutGroup group = MadeUpGroup(group_index, kSamples, version);
  v1::SubmitGroupRequest submit;
  submit.mutable_ref()->set_run_id("run");
  submit.mutable_ref()->set_timeline(1);
  submit.mutable_ref()->set_group_index(group_index);
  submit.mutable_ref()->set_attempt(1);
  submit.set_seed(1);
  submit.set_noise_id(2);
  submit.mutable_prompt_token_ids()->Add(group.prompt_token_ids.begin(),
                                         group.prompt_token_ids.end());
  for (const SampledCompletion& completion : group.completions) {
    v1::Completion* one = submit.add_completions();
    one->mutable_token_ids()->Add(completion.token_ids.begin(), completion.token_ids.end());
    one->mutable_rollout_logprobs()->Add(completion.rollout_logprobs.begin(),
                                         completion.rollout_logprobs.end());
    one->add_versions()->set_version(version);
    one->mutable_versions(0)->set_tokens(static_cast<uint32_t>(completion.token_ids.size()));
    const double accuracy = equal_accuracies ? 0.0 : completion.score.accuracy;
    one->mutable_score()->set_accuracy(accuracy);
    one->mutable_score()->set_reward(accuracy);
  }
  submit.set_checksum(member::SubmissionChecksum(submit));
  return submit;
}

// The system's clock, which calls back whenever it is read.
class WatchedClock final : public base::Clock {
 public:
  explicit WatchedClock(std::function<void()> on_read) : on_read_(std::move(on_read)) {}
  absl::Time Now() override {
    on_read_();
    return base::SystemClock()->Now();
  }
  bool AwaitUntil(absl::Mutex* mutex, const absl::Condition& condition,
                  absl::Time deadline) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return base::SystemClock()->AwaitUntil(mutex, condition, deadline);
  }

 private:
  const std::function<void()> on_read_;
};

// A learner without sockets: store, desk, publisher and loop around a fake orchestrator that has
// the next step's groups submitted as soon as a version is out, out of order.
class LearnerForTest {
 public:
  LearnerForTest(LearnerOptions options, std::unique_ptr<PolicyTrainer> trainer,
                 std::optional<v1::CommitStepRequest> last_commit = std::nullopt)
      : options_(std::move(options)), trainer_(std::move(trainer)) {
    tokenizer_ = *model::LoadTokenizer(testing::kTinyModel);
    store_.Open(1, trainer_->state().step);
    orchestrator_.on_publish = [this](const v1::Manifest& manifest) {
      const uint64_t version = manifest.version();
      if (version >= last_version_served_) return stop_.RequestStop();
      for (int i = kGroups - 1; i >= 0; --i) {
        desk_.Submit(SubmitOf(version * kGroups + static_cast<uint64_t>(i), version,
                              version == zero_variance_version_),
                     [](const auto& answer) { EXPECT_THAT(answer, IsOk()); });
      }
    };
    orchestrator_.on_cancelled_publish = [this] { stop_.RequestStop(); };
    parts_ = {.options = &options_,
              .run_id = "run",
              .timeline = 1,
              .incarnation = 9,
              .trainer = trainer_.get(),
              .store = &store_,
              .orchestrator = &orchestrator_,
              .publisher = &publisher_,
              .tokenizer = tokenizer_.get(),
              .metrics = &metrics_,
              .stop = &stop_,
              .last_commit = std::move(last_commit)};
  }

  absl::Status Run() { return StepLoop(parts_).Run(); }

  LearnerOptions options_;
  std::unique_ptr<PolicyTrainer> trainer_;
  uint64_t last_version_served_ = 3;
  uint64_t zero_variance_version_ = 99;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  base::StopToken stop_;
  metrics::MetricsRegistry registry_;
  LearnerMetrics metrics_{&registry_};
  FakeOrchestrator orchestrator_;
  weights::WeightSource source_;
  Publisher publisher_{{.run_id = "run",
                        .timeline = 1,
                        .incarnation = 9,
                        .source_address = "127.0.0.1:1",
                        .bucket_bytes = 1 << 16},
                       &source_,
                       &orchestrator_};
  GroupStore store_{{.groups_per_step = kGroups, .max_staleness = 0}};
  StepLoopParts parts_;
  SubmissionDesk desk_{
      {.rules = options_.admission, .incarnation = 9}, &store_, &orchestrator_, &metrics_};
};

std::unique_ptr<PolicyTrainer> FreshTrainer() {
  return TrainerForTest(TinyParameters(), {.learning_rate = 1e-3});
}

TEST(StepLoopTest, ClosesEveryStepInOrderAndBringsEveryVersionOut) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  ASSERT_THAT(learner.Run(), IsOk());
  const auto commits = learner.orchestrator_.commits();
  const auto manifests = learner.orchestrator_.manifests();
  ASSERT_EQ(commits.size(), 3u);
  ASSERT_EQ(manifests.size(), 4u);
  for (uint64_t step = 1; step <= 3; ++step) {
    const v1::CommitStepRequest& commit = commits[step - 1];
    EXPECT_EQ(commit.step(), step);
    EXPECT_EQ(commit.policy_version(), step);
    EXPECT_FALSE(commit.skipped());
    ASSERT_EQ(commit.closed_size(), kGroups);
    EXPECT_EQ(commit.closed(0).group_index(), (step - 1) * kGroups);
    EXPECT_EQ(commit.closed(0).ending(), v1::ENDING_TRAINED);
    const json line = json::parse(commit.metrics_json());
    EXPECT_EQ(line["base_weights_hash"], base::HexDigest(manifests[step].base_weights_hash()));
    EXPECT_GT(line["tokens_trained"], 0);
    EXPECT_TRUE(base::PathExists(CheckpointPath(dir.path(), step)));
    EXPECT_TRUE(base::PathExists(absl::StrCat(dir.path(), "/samples/step_", step, ".jsonl")));
    EXPECT_NE(manifests[step].base_weights_hash(), manifests[step - 1].base_weights_hash());
  }
}

TEST(StepLoopTest, EveryCheckpointHoldsTheLedgerThatWasAskedForBeforeItsCommit) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  std::vector<size_t> commits_before;
  learner.orchestrator_.on_snapshot = [&] {
    commits_before.push_back(learner.orchestrator_.commits().size());
  };
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_THAT(commits_before, ::testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(learner.orchestrator_.snapshots()[0].timeline(), 1u);
  EXPECT_EQ(learner.orchestrator_.snapshots()[0].learner_incarnation(), 9u);
  for (uint64_t step = 1; step <= 3; ++step) {
    const std::string ledger = LedgerOf(CheckpointPath(dir.path(), step));
    EXPECT_EQ(base::ReadFile(ledger, 100).value_or(""), "the ledger");
    EXPECT_FALSE(base::PathExists(LedgerCopyPath(dir.path(), step)));
  }
}

TEST(StepLoopTest, ACheckpointIsWrittenWithoutALedgerThatCannotBeHadAndCounted) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  learner.orchestrator_.snapshot_status = absl::ResourceExhaustedError("disk full over there");
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_EQ(learner.orchestrator_.commits().size(), 3u);
  EXPECT_THAT(ReadCheckpoint(CheckpointPath(dir.path(), 3), 5), IsOk());
  EXPECT_EQ(LedgerOf(CheckpointPath(dir.path(), 3)), "");
  EXPECT_EQ(learner.metrics_.checkpoints_without_ledger.Value(), 3);
}

TEST(StepLoopTest, WhoIsNoLongerTheLearnerWritesNoCheckpoint) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  learner.orchestrator_.snapshot_status = absl::AbortedError("timeline 2 has begun");
  EXPECT_THAT(learner.Run(), StatusIs(absl::StatusCode::kAborted));
  EXPECT_TRUE(learner.orchestrator_.commits().empty());
  EXPECT_FALSE(base::PathExists(CheckpointPath(dir.path(), 1)));
}

TEST(StepLoopTest, AStopWhileTheLedgerIsAwaitedStillWritesTheCheckpoint) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  learner.orchestrator_.snapshot_status = absl::CancelledError("this process is stopping");
  learner.orchestrator_.on_snapshot = [&] {
    if (learner.stop_.StopRequested()) learner.orchestrator_.snapshot_status = absl::OkStatus();
    learner.stop_.RequestStop();
  };
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_THAT(ReadCheckpoint(CheckpointPath(dir.path(), 1), 5), IsOk());
  EXPECT_NE(LedgerOf(CheckpointPath(dir.path(), 1)), "");
}

TEST(StepLoopTest, AStepInWhichNothingWasKeptClosesWithUnchangedBytes) {
  testing::TempDir dir;
  LearnerForTest learner(OptionsForTest(dir.path()), FreshTrainer());
  learner.zero_variance_version_ = 1;
  learner.orchestrator_.close_after_examined = kGroups;
  ASSERT_THAT(learner.Run(), IsOk());
  const auto commits = learner.orchestrator_.commits();
  const auto manifests = learner.orchestrator_.manifests();
  ASSERT_EQ(commits.size(), 3u);
  EXPECT_TRUE(commits[1].skipped());
  EXPECT_EQ(commits[1].closed(0).ending(), v1::ENDING_DROPPED_ZERO_VARIANCE);
  EXPECT_EQ(manifests[2].base_weights_hash(), manifests[1].base_weights_hash());
  EXPECT_EQ(learner.trainer_->state().skipped_steps, 1u);
  EXPECT_EQ(json::parse(commits[1].metrics_json())["skipped"], true);
}

TEST(StepLoopTest, ARunResumedFromACheckpointMakesTheSameVersions) {
  testing::TempDir dir;
  LearnerForTest whole(OptionsForTest(dir.path()), FreshTrainer());
  ASSERT_THAT(whole.Run(), IsOk());

  auto loaded = ReadCheckpoint(CheckpointPath(dir.path(), 2), 5);
  ASSERT_THAT(loaded, IsOk());
  auto trainer =
      TrainerForTest(*model::ParametersFromModel(loaded->model), {.learning_rate = 1e-3});
  ASSERT_THAT(trainer->Restore(std::move(loaded->moments), loaded->state), IsOk());
  testing::TempDir other;
  LearnerForTest resumed(OptionsForTest(other.path()), std::move(trainer), loaded->commit);
  ASSERT_THAT(resumed.Run(), IsOk());
  const auto first = whole.orchestrator_.manifests();
  const auto second = resumed.orchestrator_.manifests();
  ASSERT_EQ(second.size(), 2u);
  EXPECT_EQ(second[0].base_weights_hash(), first[2].base_weights_hash());
  EXPECT_EQ(second[1].base_weights_hash(), first[3].base_weights_hash());
}

TEST(StepLoopTest, AStopBetweenStepsWritesWhatWasCommitted) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.checkpoint_every = 0;
  LearnerForTest learner(options, FreshTrainer());
  learner.last_version_served_ = 1;
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_EQ(learner.orchestrator_.commits().size(), 1u);
  EXPECT_THAT(ReadCheckpoint(CheckpointPath(dir.path(), 1), 5), IsOk());
}

TEST(StepLoopTest, ACheckpointSaysWhatFormatsWouldMakeOfItsWeights) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.checkpoint_every = 2;
  LearnerForTest learner(options, FreshTrainer());
  ASSERT_THAT(learner.Run(), IsOk());
  ASSERT_EQ(learner.orchestrator_.commits().size(), 3u);
  for (const auto& commit : learner.orchestrator_.commits()) {
    EXPECT_EQ(json::parse(commit.metrics_json()).contains("quantization"), commit.step() >= 2);
  }
  const auto text =
      base::ReadFile(CheckpointPath(dir.path(), 2) + "/state/quantization.json", 1 << 20);
  ASSERT_THAT(text, IsOk());
  const json formats = json::parse(*text);
  const auto weights = static_cast<size_t>(7 * TinyParameters().config.num_layers);
  EXPECT_EQ(formats["mxfp4"].size(), weights);
  EXPECT_EQ(formats["nvfp4"].size(), weights);
  double least = 100.0;
  for (const auto& weight : formats["mxfp4"]) {
    least = std::min(least, weight["sqnr_db"].get<double>());
  }
  const json line = json::parse(learner.orchestrator_.commits()[1].metrics_json());
  EXPECT_EQ(line["quantization"]["mxfp4"]["sqnr_db_least"], least);
}

TEST(StepLoopTest, AStopInsideAnUpdateWritesWhatWasCommittedBeforeIt) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.checkpoint_every = 0;
  LearnerForTest learner(options, FreshTrainer());
  // The loop looks at the clock between taking the second batch and updating with it.
  WatchedClock clock([&] {
    const bool taken =
        learner.orchestrator_.admissions().size() == 2 * kGroups && learner.store_.held() == 0;
    if (taken && learner.orchestrator_.commits().size() == 1) learner.stop_.RequestStop();
  });
  learner.parts_.clock = &clock;
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_EQ(learner.orchestrator_.commits().size(), 1u);
  const auto written = ReadCheckpoint(CheckpointPath(dir.path(), 1), 5);
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(written->commit.step(), 1u);
}

TEST(StepLoopTest, AStopWhileAVersionWaitsToBeOutWritesWhatWasCommitted) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.checkpoint_every = 0;
  LearnerForTest learner(options, FreshTrainer());
  learner.orchestrator_.cancel_publish_of = 2;
  ASSERT_THAT(learner.Run(), IsOk());
  EXPECT_EQ(learner.orchestrator_.commits().size(), 2u);
  EXPECT_THAT(ReadCheckpoint(CheckpointPath(dir.path(), 2), 5), IsOk());
}

TEST(StepLoopTest, AqnThatWasPlannedAndPerturbedNoNormFailsTheRun) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.aqn = {.enabled = true,
                 .schedule = numerics::AqnSchedule::kConstant,
                 .sigma_start = 0.05,
                 .total_steps = 3};
  LearnerForTest learner(options, FreshTrainer());  // whose submits count no norm
  EXPECT_THAT(learner.Run(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                      ::testing::HasSubstr("rollout forward layers.0 input_norm")));
  ASSERT_EQ(learner.orchestrator_.stops().size(), 1u);
  EXPECT_TRUE(learner.orchestrator_.stops()[0].failed());
  EXPECT_TRUE(learner.orchestrator_.commits().empty());
}

TEST(StepLoopTest, NoiseThatWasConfiguredAndNotSeenFailsTheRun) {
  testing::TempDir dir;
  LearnerOptions options = OptionsForTest(dir.path());
  options.noise = testing::PolicyForTest(0.1, numerics::LearnerNoise::kSame);
  LearnerForTest learner(options, FreshTrainer());  // a trainer that adds none
  EXPECT_THAT(learner.Run(), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_EQ(learner.orchestrator_.stops().size(), 1u);
  EXPECT_TRUE(learner.orchestrator_.stops()[0].failed());
  EXPECT_TRUE(learner.orchestrator_.commits().empty());
}

}  // namespace
}  // namespace temper::learner
