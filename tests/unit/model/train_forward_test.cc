#include "model/train_forward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "model/score_sequences.h"
#include "numerics/operator_error.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using temper::testing::IsOk;

// Two groups: one of three completions that share a prompt, one of a single one.
std::vector<TrainGroup> Batch() {
  return {{.group_index = 5,
           .prompt_ids = TinyPrompt(6, 83, 1),
           .completions = {{0, TinyPrompt(4, 83, 2)}, {1, TinyPrompt(7, 83, 3)}, {2, {9}}}},
          {.group_index = 6, .prompt_ids = {4, 8}, .completions = {{3, TinyPrompt(5, 83, 4)}}}};
}

std::vector<float> Weights(int64_t count) {
  std::vector<float> weights;
  for (int64_t i = 0; i < count; ++i)
    weights.push_back(0.25f * static_cast<float>(i % 5 - 2) + 0.1f);
  return weights;
}

std::vector<float> ToVector(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), tensor.data_ptr<float>() + tensor.numel()};
}

double Loss(TrainModel& model, const LogProbOptions& options) {
  model.ParametersChanged();
  LogProbOptions forward = options;
  forward.gradients = false;
  const LogProbs pass = model.Forward(Batch(), forward, nullptr).value();
  const std::vector<float> logprobs = ToVector(pass.logprobs), weights = Weights(17);
  double loss = 0.0;
  for (size_t i = 0; i < logprobs.size(); ++i) loss += double{logprobs[i]} * weights[i];
  return loss;
}

// Central differences along a direction of one tensor, against the gradient.
void CheckAgainstDifferences(const ModelConfig& config, const LogProbOptions& options) {
  auto model = TrainModel::Create(TinyParameters(config), {.threads = 2, .head_rows = 5}).value();
  const LogProbs pass = model->Forward(Batch(), options, nullptr).value();
  ASSERT_THAT(model->Backward(pass, Weights(17), nullptr), IsOk());
  for (auto& [name, tensor] : model->parameters().named) {
    const std::vector<float> gradient = ToVector(tensor.grad());
    float* values = tensor.data_ptr<float>();
    const std::vector<float> kept(values, values + tensor.numel());
    double norm = 0.0;
    for (float g : gradient) norm += double{g} * g;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-4) << name;
    // Along the gradient itself, where the slope is its norm.
    const double step = 2e-3;
    const auto at = [&](double sign) {
      for (size_t i = 0; i < kept.size(); ++i) {
        values[i] = static_cast<float>(kept[i] + sign * step * gradient[i] / norm);
      }
      return Loss(*model, options);
    };
    const double slope = (at(1.0) - at(-1.0)) / (2.0 * step);
    std::copy(kept.begin(), kept.end(), values);
    EXPECT_NEAR(slope, norm, 0.01 * norm + 2e-3) << name;
  }
}

TEST(TrainModel, GradientsAgreeWithFiniteDifferences) {
  CheckAgainstDifferences(TinyConfig(), {.temperature = 0.8});
}

TEST(TrainModel, GradientsOfAPerturbedForwardArePathwise) {
  // Error in the forward pass alone, so that the difference quotient sees all of it.
  numerics::NoiseSpec spec;
  spec.enabled = true;
  spec.error_scale = 0.3;
  spec.forward_only = true;
  spec.target_modules = {"q", "k", "v", "o", "gate", "up", "down", "lm_head"};
  const auto policy = numerics::NoisePolicy::Create(spec, {.num_layers = 2}).value();
  CheckAgainstDifferences(TinyConfig(), {.noise = {.policy = &policy, .run_seed = 3}});
  CheckAgainstDifferences(TinyConfig(), {.noise = {.policy = &policy,
                                                   .draw = numerics::LearnerNoise::kFresh,
                                                   .run_seed = 3,
                                                   .optimizer_step = 2}});
}

TEST(TrainModel, GradientsUnderErrorsWhoseDerivativeIsExactAreThoseOfTheForward) {
  for (numerics::NoiseSpec spec : EveryErrorSpec()) {
    const bool exact = spec.error_type == numerics::ErrorType::kAbsoluteGaussian || spec.relative;
    if (!exact) continue;  // straight-through: not the derivative, and not meant to be
    spec.forward_only = true;
    const numerics::NoisePolicy policy = PolicyOf(spec);
    CheckAgainstDifferences(TinyConfig(), {.noise = {.policy = &policy, .run_seed = 3}});
  }
}

TEST(TrainModel, GradientsOfAModelWithHeadNormsAndAqnAgreeWithFiniteDifferences) {
  ModelConfig config = TinyConfig();
  config.architecture = "Qwen3ForCausalLM";
  config.qkv_bias = false;
  config.qk_norm = true;
  config.tie_word_embeddings = false;
  numerics::AqnPlan plan;
  plan.enabled = true;
  plan.schedule = numerics::AqnSchedule::kConstant;
  plan.sigma_start = 0.2;
  plan.total_steps = 10;
  plan.in_learner = true;
  CheckAgainstDifferences(config, {.aqn = {.plan = &plan, .sigma = 0.2, .run_seed = 3}});
  plan.draw = numerics::AqnDrawScope::kPerGroup;
  plan.target_modules = {"*_layernorm", "q_norm", "k_norm", "model.norm"};
  CheckAgainstDifferences(config, {.aqn = {.plan = &plan, .sigma = 0.2, .run_seed = 3}});
}

std::vector<float> AllGradients(TrainModel& model) {
  std::vector<float> all;
  for (auto& [name, tensor] : model.parameters().named) {
    const std::vector<float> gradient = ToVector(tensor.grad());
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

TEST(TrainModel, NothingDependsOnThreadsOrOnTheSizeOfAChunk) {
  const numerics::NoisePolicy policy = TinyPolicy(0.1, true);
  std::vector<float> expected;
  numerics::NoiseCounters expected_counters;
  for (const TrainOptions options :
       {TrainOptions{1, 256}, TrainOptions{3, 4}, TrainOptions{2, 1}}) {
    auto model = TrainModel::Create(TinyParameters(TinyConfig()), options).value();
    const LogProbOptions pass_options = {.noise = {.policy = &policy, .run_seed = 3}};
    numerics::NoiseCounters counters;
    const LogProbs pass = model->Forward(Batch(), pass_options, &counters).value();
    ASSERT_THAT(model->Backward(pass, Weights(17), &counters), IsOk());
    ASSERT_THAT(model->ApplyGradWeightError(pass_options.noise, &counters), IsOk());
    if (expected.empty()) {
      expected = AllGradients(*model);
      expected_counters = counters;
      EXPECT_THAT(numerics::CheckSeen(policy, counters), IsOk());
    }
    EXPECT_EQ(AllGradients(*model), expected);
    EXPECT_EQ(counters, expected_counters);
  }
}

TEST(TrainModel, NothingDependsOnThreadsOrOnTheSizeOfAChunkUnderAnyError) {
  for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
    const numerics::NoisePolicy policy = PolicyOf(spec);
    std::vector<float> expected;
    numerics::NoiseCounters expected_counters;
    for (const TrainOptions options : {TrainOptions{1, 256}, TrainOptions{4, 3}}) {
      auto model = TrainModel::Create(TinyParameters(TinyConfig()), options).value();
      const LogProbOptions pass_options = {.noise = {.policy = &policy, .run_seed = 3}};
      numerics::NoiseCounters counters;
      const LogProbs pass = model->Forward(Batch(), pass_options, &counters).value();
      ASSERT_THAT(model->Backward(pass, Weights(17), &counters), IsOk());
      ASSERT_THAT(model->ApplyGradWeightError(pass_options.noise, &counters), IsOk());
      if (expected.empty()) {
        expected = AllGradients(*model);
        expected_counters = counters;
        EXPECT_THAT(numerics::CheckSeen(policy, counters), IsOk()) << policy.Describe();
      }
      EXPECT_EQ(AllGradients(*model), expected) << policy.Describe();
      EXPECT_EQ(counters, expected_counters) << policy.Describe();
    }
  }
}

// The gradient as micro-batches of the given groups, after the error of g_W.
std::vector<float> InMicroBatches(const numerics::NoisePolicy& policy,
                                  const std::vector<std::vector<TrainGroup>>& batches) {
  auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
  const TrainNoise noise = {.policy = &policy, .run_seed = 3};
  for (const std::vector<TrainGroup>& batch : batches) {
    const LogProbs pass = model->Forward(batch, {.noise = noise}, nullptr).value();
    EXPECT_THAT(
        model->Backward(pass, std::vector<float>(static_cast<size_t>(pass.logprobs.numel()), 0.5f),
                        nullptr),
        IsOk());
  }
  EXPECT_THAT(model->ApplyGradWeightError(noise, nullptr), IsOk());
  return AllGradients(*model);
}

double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{a[i]} * a[i];
  }
  return std::sqrt(difference / norm);
}

TEST(TrainModel, ErrorOfTheGradientDoesNotDependOnMicroBatchesOrPrefixSharing) {
  const numerics::NoisePolicy policy = TinyPolicy(0.2, true);
  const std::vector<TrainGroup> batch = Batch();
  std::vector<std::vector<TrainGroup>> each;
  for (const TrainGroup& group : batch) {
    for (const TrainCompletion& completion : group.completions) {
      each.push_back({{group.group_index, group.prompt_ids, {completion}}});
    }
  }
  const std::vector<float> together = InMicroBatches(policy, {batch});
  EXPECT_LT(RelativeDistance(together, InMicroBatches(policy, each)), 1e-5);
  EXPECT_GT(RelativeDistance(together, InMicroBatches(TinyPolicy(0.2), {batch})), 1e-3);
}

TEST(TrainModel, ErrorOfAnyTypeDoesNotDependOnMicroBatchesOfWholeGroups) {
  const std::vector<TrainGroup> batch = Batch();
  for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
    const numerics::NoisePolicy policy = PolicyOf(spec);
    // A sum that is rounded otherwise may cross a step of the error of g_W: a few elements of 1e4.
    EXPECT_LT(RelativeDistance(InMicroBatches(policy, {batch}),
                               InMicroBatches(policy, {{batch[1]}, {batch[0]}})),
              1e-3)
        << policy.Describe();
  }
}

TEST(TrainModel, ErrorOfGradientsThatIsNotLinearActsOnTheSumOverTheSamplesOfAPrompt) {
  // Two equal completions of half the weight are one completion.
  const TrainCompletion one = {0, TinyPrompt(1, 83, 2)}, other = {1, TinyPrompt(1, 83, 2)};
  const std::vector<TrainGroup> single = {{5, TinyPrompt(6, 83, 1), {one}}};
  const std::vector<TrainGroup> twice = {{5, TinyPrompt(6, 83, 1), {one, other}}};
  for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
    const numerics::NoisePolicy policy = PolicyOf(spec);
    std::vector<std::vector<float>> gradients;
    for (const std::vector<TrainGroup>& groups : {single, twice}) {
      auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
      const TrainNoise noise = {.policy = &policy, .run_seed = 3};
      const LogProbs pass = model->Forward(groups, {.noise = noise}, nullptr).value();
      const auto tokens = static_cast<size_t>(pass.logprobs.numel());
      ASSERT_THAT(model->Backward(pass, std::vector<float>(tokens, 1.0f / tokens), nullptr),
                  IsOk());
      gradients.push_back(AllGradients(*model));
    }
    EXPECT_LT(RelativeDistance(gradients[0], gradients[1]), 1e-5) << policy.Describe();
  }
}

TEST(TrainModel, ErrorOfGWActsOnceOnTheSumByOutputFeature) {
  ModelConfig config = TinyConfig();
  config.tie_word_embeddings = false;
  for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
    const numerics::NoisePolicy policy = PolicyOf(spec);
    auto model = TrainModel::Create(TinyParameters(config), {}).value();
    const TrainNoise noise = {.policy = &policy, .run_seed = 3, .optimizer_step = 4};
    for (const TrainGroup& group : Batch()) {
      const LogProbs pass = model->Forward({&group, 1}, {.noise = noise}, nullptr).value();
      const auto tokens = static_cast<size_t>(pass.logprobs.numel());
      ASSERT_THAT(model->Backward(pass, std::vector<float>(tokens, 0.5f), nullptr), IsOk());
    }
    const auto gradient_of = [&](const char* name) {
      return ToVector(model->parameters().Get(name).grad());
    };
    std::vector<float> down = gradient_of("model.layers.1.mlp.down_proj.weight");
    std::vector<float> head = gradient_of("lm_head.weight");
    const std::vector<float> bias = gradient_of("model.layers.1.self_attn.q_proj.bias");
    ASSERT_THAT(model->ApplyGradWeightError(noise, nullptr), IsOk());
    const numerics::OperatorError error = policy.Error(
        numerics::Phase::kTrain, numerics::Direction::kBackward, numerics::Operator::kDown, 1);
    const uint64_t key = base::GradWeightErrorKey(3, 4);
    numerics::ApplyErrorToWeight(
        error, down.data(), 40, 56, key,
        numerics::Site(1, numerics::Operator::kDown, numerics::TensorRole::kGradWeight), nullptr);
    numerics::ApplyErrorToWeight(error, head.data(), 83, 40, key,
                                 numerics::Site(numerics::kNoLayer, numerics::Operator::kLmHead,
                                                numerics::TensorRole::kGradWeight),
                                 nullptr);
    EXPECT_EQ(gradient_of("model.layers.1.mlp.down_proj.weight"), down) << policy.Describe();
    EXPECT_EQ(gradient_of("lm_head.weight"), head) << policy.Describe();
    EXPECT_EQ(gradient_of("model.layers.1.self_attn.q_proj.bias"), bias) << policy.Describe();
  }
}

TEST(TrainModel, StraightThroughLeavesOutTheFactorOfTheForward) {
  const numerics::NoisePolicy pathwise = TinyPolicy(0.2);
  const numerics::NoisePolicy straight =
      TinyPolicy(0.2, false, numerics::ErrorGradient::kStraightThrough);
  EXPECT_GT(
      RelativeDistance(InMicroBatches(pathwise, {Batch()}), InMicroBatches(straight, {Batch()})),
      1e-2);
}

TEST(TrainModel, FreshDrawsDifferByOptimizerStepAndSameDrawsDoNot) {
  const numerics::NoisePolicy policy = TinyPolicy(0.1);
  auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
  const auto logprobs = [&](numerics::LearnerNoise draw, uint64_t step) {
    return ToVector(
        model
            ->Forward(
                Batch(),
                {.noise = {.policy = &policy, .draw = draw, .run_seed = 3, .optimizer_step = step},
                 .gradients = false},
                nullptr)
            .value()
            .logprobs);
  };
  using numerics::LearnerNoise;
  EXPECT_EQ(logprobs(LearnerNoise::kSame, 0), logprobs(LearnerNoise::kSame, 1));
  EXPECT_NE(logprobs(LearnerNoise::kFresh, 0), logprobs(LearnerNoise::kFresh, 1));
  EXPECT_NE(logprobs(LearnerNoise::kFresh, 0), logprobs(LearnerNoise::kNone, 0));
}

TEST(TrainModel, EntropyIsThatOfTheDistribution) {
  auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
  TrainGroup group = {.group_index = 0, .prompt_ids = {4, 8, 15}};
  for (int32_t id = 0; id < 83; ++id) {
    group.completions.push_back({static_cast<uint32_t>(id), {id}});
  }
  const LogProbs pass = model->Forward({&group, 1}, {.gradients = false}, nullptr).value();
  double entropy = 0.0, total = 0.0;
  for (float logprob : ToVector(pass.logprobs)) {
    total += std::exp(double{logprob});
    entropy -= std::exp(double{logprob}) * logprob;
  }
  EXPECT_NEAR(total, 1.0, 1e-5);
  EXPECT_NEAR(pass.entropy.data_ptr<float>()[0], entropy, 1e-5);
}

TEST(TrainModel, RefusesBadBatches) {
  auto model = TrainModel::Create(TinyParameters(TinyConfig()), {}).value();
  const TrainGroup foreign = {.prompt_ids = {1, 83}, .completions = {{0, {1}}}};
  EXPECT_EQ(model->Forward({&foreign, 1}, {}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  const TrainGroup empty = {.prompt_ids = {}, .completions = {{0, {1}}}};
  EXPECT_EQ(model->Forward({&empty, 1}, {}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  const LogProbs pass = model->Forward(Batch(), {.gradients = false}, nullptr).value();
  EXPECT_EQ(model->Backward(pass, Weights(17), nullptr).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Backward(pass, Weights(3), nullptr).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace temper::model
