#include "rollout_worker/engine_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/adapter_parameters.h"
#include "model/parameters.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rollout_worker/setup_for_test.h"

namespace temper::rollout_worker {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

class EngineSamplerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setup_ = SetupForTest();
    parameters_ = *model::InitializeParameters(setup_->model, 3);
  }

  std::shared_ptr<const weights::WeightVersion> Publish(uint64_t version, double sigma) {
    return Publish(version, sigma, model::TrainedViewsOf(parameters_));
  }
  std::shared_ptr<const weights::WeightVersion> Publish(uint64_t version, double sigma,
                                                        const model::TensorViewMap& views) {
    std::vector<weights::PublishedTensor> tensors;
    for (const auto& [name, view] : views) {
      tensors.push_back(
          {.spec = {name, view.shape, "float32"}, .bytes = std::as_bytes(view.values)});
    }
    return *weights::BuildVersion({.run_id = "run-1",
                                   .timeline = 1,
                                   .version = version,
                                   .aqn_sigma = sigma,
                                   .aqn_step = version},
                                  tensors, 1 << 16);
  }

  model::GenerateRequest Request(bool aqn) {
    return {.groups = {{.scope = 4, .prompt_ids = {5, 6, 7}, .samples = 2}},
            .max_completion_tokens = 6,
            .stop_ids = setup_->stop_ids,
            .seed = 1,
            .policy = &setup_->policy,
            .aqn = aqn};
  }

  std::unique_ptr<RunSetup> setup_;
  model::Parameters parameters_;
};

TEST_F(EngineSamplerTest, SamplesWithTheReceivedBytesAsAnEngineWithTheModelItself) {
  auto sampler = MakeEngineSampler(*setup_, "worker-0");
  ASSERT_THAT(sampler, IsOk());
  const auto report = (*sampler)->Install(*Publish(7, 0.05));
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->sigma, 0.05);
  EXPECT_GT(report->norms_touched, 0);

  auto engine = model::DecodeEngine::Create({.config = setup_->model});
  ASSERT_THAT(engine, IsOk());
  const auto direct = (*engine)->Install(
      parameters_, 7,
      {.plan = &setup_->aqn, .sigma = 0.05, .step = 7, .run_seed = setup_->config.seed()});
  ASSERT_THAT(direct, IsOk());
  EXPECT_EQ(report->checksum, direct->checksum);

  for (const bool aqn : {false, true}) {
    const auto received = (*sampler)->Generate(Request(aqn), {});
    const auto expected = (*engine)->Generate(Request(aqn), {});
    ASSERT_THAT(received, IsOk());
    ASSERT_THAT(expected, IsOk());
    for (size_t sample = 0; sample < 2; ++sample) {
      const model::Completion& a = received->groups[0].completions[sample];
      const model::Completion& b = expected->groups[0].completions[sample];
      EXPECT_EQ(a.token_ids, b.token_ids);
      EXPECT_EQ(a.logprobs, b.logprobs);
      EXPECT_EQ(a.versions.front().version, 7u);
    }
  }
}

TEST_F(EngineSamplerTest, RefusesAVersionWhoseAqnChangesNoNorm) {
  setup_->aqn.layers = {.enabled = true, .default_multiplier = 0.0};
  auto sampler = MakeEngineSampler(*setup_, "worker-0");
  ASSERT_THAT(sampler, IsOk());
  EXPECT_THAT((*sampler)->Install(*Publish(7, 0.05)),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("0.05")));
  EXPECT_THAT((*sampler)->Install(*Publish(8, 0.0)), IsOk());
}

TEST_F(EngineSamplerTest, InstallsNothingOfAVersionThatLacksATensor) {
  auto sampler = MakeEngineSampler(*setup_, "worker-0");
  ASSERT_THAT(sampler, IsOk());
  const float one[] = {1.0F};
  const std::vector<weights::PublishedTensor> tensors = {
      {.spec = {"model.norm.weight", {1}, "float32"}, .bytes = std::as_bytes(std::span(one))}};
  const auto version = weights::BuildVersion({.run_id = "run-1"}, tensors, 100);
  ASSERT_THAT(version, IsOk());
  EXPECT_THAT((*sampler)->Install(**version), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT((*sampler)->Generate(Request(false), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(EngineSamplerTest, SamplesWithTheAdaptersOfAVersionOnTheBaseItHolds) {
  setup_ = SetupForTest({"trainer.lora.enabled=true", "trainer.lora.rank=4"});
  const auto base = Publish(0, 0.0, model::ViewsOf(parameters_));
  parameters_ = *model::WithFreshAdapter(parameters_, setup_->lora, 5);
  for (const auto& [name, values] : model::MutableViewsOf(parameters_)) {
    std::fill(values.begin(), values.end(), 0.02f);
  }
  EXPECT_THAT(MakeEngineSampler(*setup_, "worker-0"), StatusIs(absl::StatusCode::kInvalidArgument));
  auto sampler = MakeEngineSampler(*setup_, "worker-0", base.get());
  ASSERT_THAT(sampler, IsOk());
  const auto version = Publish(7, 0.05);
  EXPECT_EQ(version->manifest().tensors_size(), 2 * 7 * setup_->model.num_layers);
  ASSERT_THAT((*sampler)->Install(*version), IsOk());
  EXPECT_THAT((*sampler)->Install(*base), StatusIs(absl::StatusCode::kInvalidArgument))
      << "a whole model is no version of adapters";

  auto engine = model::DecodeEngine::Create({.config = setup_->model});
  ASSERT_THAT(engine, IsOk());
  ASSERT_THAT(
      (*engine)->Install(
          parameters_, 7,
          {.plan = &setup_->aqn, .sigma = 0.05, .step = 7, .run_seed = setup_->config.seed()}),
      IsOk());
  const auto received = (*sampler)->Generate(Request(true), {});
  const auto expected = (*engine)->Generate(Request(true), {});
  ASSERT_THAT(received, IsOk());
  ASSERT_THAT(expected, IsOk());
  EXPECT_EQ(received->groups[0].completions[0].logprobs,
            expected->groups[0].completions[0].logprobs);
  EXPECT_EQ(received->groups[0].counters, expected->groups[0].counters);
}

}  // namespace
}  // namespace temper::rollout_worker
