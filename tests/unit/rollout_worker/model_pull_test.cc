// How a worker comes to its model: it waits for the learner and takes what the learner has.

#include "rollout_worker/model_pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "model/parameters.h"
#include "rollout_worker/prepare_sampler.h"
#include "rollout_worker/worker.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rollout_worker/fake_run.h"
#include "tests/unit/rollout_worker/fake_sampler.h"
#include "tests/unit/rollout_worker/setup_for_test.h"

namespace temper::rollout_worker {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

TEST(PullModelAgainTest, TriesAgainWhatMayMendItself) {
  EXPECT_TRUE(PullModelAgain(absl::UnavailableError("not ready"), 0));
  EXPECT_TRUE(PullModelAgain(absl::DeadlineExceededError("slow"), 0));
  EXPECT_TRUE(PullModelAgain(absl::DataLossError("hash"), 2));
  EXPECT_FALSE(PullModelAgain(absl::DataLossError("hash"), 3));
  EXPECT_FALSE(PullModelAgain(absl::FailedPreconditionError("another run"), 0));
  EXPECT_FALSE(PullModelAgain(absl::ResourceExhaustedError("too large"), 0));
  EXPECT_FALSE(PullModelAgain(absl::CancelledError("stop"), 0));
}

class ModelPullTest : public ::testing::Test {
 protected:
  explicit ModelPullTest(std::unique_ptr<RunSetup> setup = SetupForTest())
      : setup_(std::move(setup)), run_(*setup_) {}

  void Join() {
    auto membership =
        member::MembershipClient::Create({.orchestrator_address = run_.orchestrator_address(),
                                          .role = v1::ROLE_ROLLOUT_WORKER,
                                          .member_id = "worker-1",
                                          .incarnation = 1,
                                          .stop = &stop_,
                                          .leave_signal = &stop_});
    ASSERT_THAT(membership, IsOk());
    membership_ = *std::move(membership);
  }
  absl::StatusOr<std::unique_ptr<RunSetup>> Pull(absl::Duration patience = absl::Seconds(20)) {
    return AwaitRunSetup({.membership = membership_.get(), .stop = &stop_, .patience = patience});
  }

  const std::unique_ptr<RunSetup> setup_;
  FakeRun run_;
  base::StopToken stop_;
  std::unique_ptr<member::MembershipClient> membership_;
};

TEST_F(ModelPullTest, WaitsForALearnerThatIsNotThereAndNotReadyAndTakesItsModel) {
  run_.HideLearner(true);
  Join();
  EXPECT_THAT(Pull(absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("no learner has joined")));
  run_.HideLearner(false);
  absl::StatusOr<std::unique_ptr<RunSetup>> pulled = absl::UnknownError("");
  std::thread worker([&] { pulled = Pull(); });
  run_.ServeModel(QuickstartFiles());
  worker.join();
  ASSERT_THAT(pulled, IsOk());
  EXPECT_EQ((*pulled)->model, setup_->model);
  EXPECT_EQ((*pulled)->model_files_hash, setup_->model_files_hash);
  EXPECT_EQ((*pulled)->noise_id, setup_->noise_id);
  EXPECT_EQ((*pulled)->tokenizer->ToTokenizerJson(), setup_->tokenizer->ToTokenizerJson());
}

TEST_F(ModelPullTest, AStopEndsTheWaitAndTheWorkerLeaves) {
  Join();
  absl::StatusOr<std::unique_ptr<RunSetup>> pulled = absl::UnknownError("");
  std::thread worker([&] { pulled = Pull(); });
  stop_.RequestStop();
  worker.join();
  EXPECT_THAT(pulled, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(LeaveBeforeWork(membership_.get()), IsOk());
  EXPECT_TRUE(run_.heard().left);
}

TEST_F(ModelPullTest, AWorkerWithOtherModelFilesThanTheRunsIsRefused) {
  run_.ForeignModel();
  run_.Publish(1, 0);
  Join();
  FakeSampler sampler;
  metrics::MetricsRegistry registry;
  RolloutWorker worker({.membership = membership_.get(),
                        .setup = setup_.get(),
                        .sampler = &sampler,
                        .registry = &registry,
                        .stop = &stop_,
                        .poll = absl::ZeroDuration()});
  EXPECT_THAT(worker.Run(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("model whose")));
  EXPECT_TRUE(run_.heard().acknowledged.empty());
}

TEST_F(ModelPullTest, AWorkerOnAnotherBaseThanTheVersionsAdaptersIsRefused) {
  run_.ForeignBase();
  run_.Publish(1, 0);
  Join();
  FakeSampler sampler;
  metrics::MetricsRegistry registry;
  RolloutWorker worker({.membership = membership_.get(),
                        .setup = setup_.get(),
                        .sampler = &sampler,
                        .registry = &registry,
                        .stop = &stop_,
                        .poll = absl::ZeroDuration()});
  EXPECT_THAT(worker.Run(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("adapts a base of hash")));
  EXPECT_TRUE(run_.heard().acknowledged.empty());
}

// A run that trains adapters, as its configuration says.
class AdapterPullTest : public ModelPullTest {
 protected:
  AdapterPullTest() : ModelPullTest(SetupForTest({"trainer.lora.enabled=true"})) {}

  absl::StatusOr<std::unique_ptr<Sampler>> Prepare(std::unique_ptr<RunSetup>* setup) {
    return PrepareSampler(
        {.membership = membership_.get(), .stop = &stop_, .patience = absl::Seconds(20)}, setup);
  }
};

TEST_F(AdapterPullTest, TheFrozenBaseComesFromTheLearnerBeforeAnyVersion) {
  const model::Parameters base = model::InitializeParameters(setup_->model, 3).value();
  std::vector<weights::PublishedTensor> tensors;
  for (const auto& [name, view] : model::ViewsOf(base)) {
    tensors.push_back({.spec = {name, view.shape, "float32"}, .bytes = std::as_bytes(view.values)});
  }
  const auto built = *weights::BuildVersion({.run_id = "run-1"}, tensors, 1 << 16);
  run_.ServeBase(built);
  run_.ServeModel(QuickstartFiles());
  Join();
  std::unique_ptr<RunSetup> setup;
  ASSERT_THAT(Prepare(&setup), IsOk());
  EXPECT_EQ(setup->base_hash, built->manifest().base_weights_hash());
  EXPECT_TRUE(setup->lora.enabled());
}

TEST_F(AdapterPullTest, AStopEndsTheWaitForTheBase) {
  run_.ServeModel(QuickstartFiles());  // a learner without a base: NotFound, asked again
  Join();
  std::unique_ptr<RunSetup> setup;
  absl::StatusOr<std::unique_ptr<Sampler>> prepared = absl::UnknownError("");
  std::thread worker([&] { prepared = Prepare(&setup); });
  stop_.RequestStop();
  worker.join();
  EXPECT_THAT(prepared, StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace temper::rollout_worker
