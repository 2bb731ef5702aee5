#include "model/decode_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/train_forward.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using temper::testing::IsOk;

std::unique_ptr<DecodeEngine> EngineWith(const Parameters& parameters, int threads = 1,
                                         uint64_t version = 0) {
  auto engine = DecodeEngine::Create({.config = parameters.config, .threads = threads}).value();
  EXPECT_TRUE(engine->Install(parameters, version, {}).ok());
  return engine;
}

GenerateRequest RequestFor(std::vector<uint64_t> scopes, const numerics::NoisePolicy* policy) {
  GenerateRequest request;
  for (uint64_t scope : scopes) {
    request.groups.push_back({.scope = scope,
                              .prompt_ids = TinyPrompt(13 + static_cast<int64_t>(scope) % 9, 83,
                                                       static_cast<int64_t>(scope)),
                              .samples = 5});
  }
  request.max_completion_tokens = 24;
  request.stop_ids = {3, 17, 40};
  request.seed = 11;
  request.policy = policy;
  return request;
}

void ExpectEqual(const GeneratedGroup& a, const GeneratedGroup& b) {
  ASSERT_EQ(a.completions.size(), b.completions.size());
  for (size_t s = 0; s < a.completions.size(); ++s) {
    EXPECT_EQ(a.completions[s].token_ids, b.completions[s].token_ids);
    EXPECT_EQ(a.completions[s].logprobs, b.completions[s].logprobs);
    EXPECT_EQ(a.completions[s].truncated, b.completions[s].truncated);
    EXPECT_EQ(a.completions[s].versions, b.completions[s].versions);
  }
  EXPECT_EQ(a.counters, b.counters);
}

// The learner's log-probs of what was generated.
std::vector<float> Replay(const Parameters& parameters, const GenerateRequest& request,
                          const GenerateResult& result, int threads) {
  std::vector<TrainGroup> groups;
  for (size_t g = 0; g < request.groups.size(); ++g) {
    TrainGroup group = {.group_index = request.groups[g].scope,
                        .prompt_ids = request.groups[g].prompt_ids};
    for (uint32_t s = 0; s < request.groups[g].samples; ++s) {
      group.completions.push_back({s, result.groups[g].completions[s].token_ids});
    }
    groups.push_back(group);
  }
  auto model = TrainModel::Create(parameters, {.threads = threads, .head_rows = 7}).value();
  const LogProbs pass =
      model
          ->Forward(groups,
                    {.temperature = request.temperature,
                     .noise = {.policy = request.policy, .run_seed = request.seed},
                     .gradients = false},
                    nullptr)
          .value();
  const float* values = pass.logprobs.data_ptr<float>();
  return {values, values + pass.logprobs.numel()};
}

std::vector<float> Recorded(const GenerateResult& result) {
  std::vector<float> all;
  for (const GeneratedGroup& group : result.groups) {
    for (const Completion& completion : group.completions) {
      all.insert(all.end(), completion.logprobs.begin(), completion.logprobs.end());
    }
  }
  return all;
}

TEST(DecodeEngine, AGroupHasTheSameBitsWhateverElseIsInTheBatch) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const numerics::NoisePolicy policy = TinyPolicy(0.1);
  auto engine = EngineWith(parameters);
  const GenerateResult together = engine->Generate(RequestFor({4, 9, 2, 31}, &policy)).value();
  const GenerateResult alone = engine->Generate(RequestFor({2}, &policy)).value();
  const GenerateResult threads =
      EngineWith(parameters, 3)->Generate(RequestFor({31, 2, 9, 4}, &policy)).value();
  ExpectEqual(together.groups[2], alone.groups[0]);
  ExpectEqual(together.groups[2], threads.groups[1]);
  ExpectEqual(together.groups[0], threads.groups[3]);
  EXPECT_GT(together.generated_tokens, 40u);
}

TEST(DecodeEngine, AGroupUnderAnyErrorHasTheSameBitsWhateverElseIsInTheBatch) {
  const Parameters parameters = TinyParameters(TinyConfig());
  for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
    const numerics::NoisePolicy policy = PolicyOf(spec);
    const GenerateResult together =
        EngineWith(parameters)->Generate(RequestFor({4, 9, 2, 31}, &policy)).value();
    const GenerateResult other =
        EngineWith(parameters, 4)->Generate(RequestFor({2, 31}, &policy)).value();
    ExpectEqual(together.groups[2], other.groups[0]);
    ExpectEqual(together.groups[3], other.groups[1]);
    EXPECT_THAT(numerics::CheckSeen(policy, together.groups[2].counters), IsOk());
  }
}

TEST(DecodeEngine, TheSharedPromptIsOneComputationOfEqualDraws) {
  // A group of one sample has a prompt of its own; sample 0 of a larger group must be the same.
  const Parameters parameters = TinyParameters(TinyConfig());
  const numerics::NoisePolicy policy = TinyPolicy(0.1);
  auto engine = EngineWith(parameters);
  GenerateRequest request = RequestFor({6}, &policy);
  const GenerateResult shared = engine->Generate(request).value();
  request.groups[0].samples = 1;
  const GenerateResult single = engine->Generate(request).value();
  EXPECT_EQ(shared.groups[0].completions[0].token_ids, single.groups[0].completions[0].token_ids);
  EXPECT_EQ(shared.groups[0].completions[0].logprobs, single.groups[0].completions[0].logprobs);
  // And the samples differ from each other.
  EXPECT_NE(shared.groups[0].completions[0].token_ids, shared.groups[0].completions[1].token_ids);
}

TEST(DecodeEngine, TheLearnerReplaysTheLogProbsBitForBit) {
  for (bool qwen3 : {false, true}) {
    ModelConfig config = TinyConfig();
    if (qwen3) {
      config.architecture = "Qwen3ForCausalLM";
      config.qkv_bias = false;
      config.qk_norm = true;
      config.tie_word_embeddings = false;
    }
    const Parameters parameters = TinyParameters(config);
    for (double temperature : {1.0, 0.7}) {
      for (double scale : {0.0, 0.1}) {
        const numerics::NoisePolicy policy =
            scale > 0.0 ? TinyPolicy(scale, true) : numerics::NoisePolicy();
        GenerateRequest request = RequestFor({3, 8}, &policy);
        request.temperature = temperature;
        const GenerateResult result = EngineWith(parameters, 2)->Generate(request).value();
        EXPECT_EQ(Replay(parameters, request, result, 2), Recorded(result))
            << qwen3 << " " << temperature << " " << scale;
      }
    }
  }
}

TEST(DecodeEngine, TheLearnerReplaysTheLogProbsUnderAnyErrorBitForBit) {
  const Parameters parameters = TinyParameters(TinyConfig());
  for (numerics::NoiseSpec spec : EveryErrorSpec()) {
    for (const auto key : {numerics::NoiseKey::kFresh, numerics::NoiseKey::kFrozen}) {
      spec.noise_key = key;
      spec.device_seed = 5;
      const numerics::NoisePolicy policy = PolicyOf(spec);
      const GenerateRequest request = RequestFor({3, 8}, &policy);
      const GenerateResult result = EngineWith(parameters, 2)->Generate(request).value();
      EXPECT_EQ(Replay(parameters, request, result, 2), Recorded(result)) << policy.Describe();
      GenerateRequest without = request;
      without.policy = nullptr;
      EXPECT_NE(Replay(parameters, without, result, 2), Recorded(result)) << policy.Describe();
    }
  }
}

TEST(DecodeEngine, CountsEveryPerturbedRowOfEveryOperator) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const numerics::NoisePolicy policy = TinyPolicy(0.1);
  const GenerateRequest request = RequestFor({5}, &policy);
  const GenerateResult result = EngineWith(parameters)->Generate(request).value();
  uint64_t rows = request.groups[0].prompt_ids.size();
  for (const Completion& completion : result.groups[0].completions) {
    rows += completion.token_ids.size() - 1;
  }
  const auto& counted = result.groups[0].counters.rows();
  const numerics::NoiseRowId down = {numerics::Phase::kRollout, numerics::Direction::kForward, 1,
                                     numerics::Operator::kDown};
  ASSERT_TRUE(counted.contains(down));
  EXPECT_EQ(counted.at(down).operator_calls, rows);
  EXPECT_EQ(counted.at(down).stats.elements, rows * 40);
  EXPECT_NEAR(counted.at(down).stats.AchievedScale(), 0.1, 0.01);
  const numerics::NoiseRowId head = {numerics::Phase::kRollout, numerics::Direction::kForward,
                                     numerics::kNoLayer, numerics::Operator::kLmHead};
  EXPECT_EQ(counted.at(head).stats.elements, 0u);  // excluded by default, and seen to be
  EXPECT_THAT(numerics::CheckSeen(policy, result.groups[0].counters), IsOk());
}

numerics::AqnPlan ConstantAqn() {
  return {.enabled = true,
          .schedule = numerics::AqnSchedule::kConstant,
          .sigma_start = 0.05,
          .total_steps = 10};
}

TEST(DecodeEngine, CountsTheNormsWhoseWeightsWerePerturbedWhereTheyAreRead) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const numerics::AqnPlan plan = ConstantAqn();
  const auto layers = static_cast<int>(parameters.config.num_layers);
  const std::vector<uint64_t> versions = {3};
  for (const int threads : {1, 3}) {
    auto engine = EngineWith(parameters, threads);
    ASSERT_THAT(engine->Install(parameters, 3, {.plan = &plan, .sigma = 0.05, .step = 3}), IsOk());
    GenerateRequest request = RequestFor({5, 8}, nullptr);
    request.aqn = true;
    const GenerateResult result = engine->Generate(request).value();
    const GeneratedGroup& group = result.groups[0];
    uint64_t decoded = 0;
    for (const Completion& completion : group.completions) {
      decoded += completion.token_ids.size() - 1;
    }
    const uint64_t rows = request.groups[0].prompt_ids.size() + decoded;
    EXPECT_EQ(group.aqn_sigma, 0.05);
    EXPECT_THAT(numerics::CheckAqnSeen(plan, layers, versions, group.counters), IsOk());
    const numerics::NoiseRow seen = group.counters.Aqn();
    // Two norms a layer and row, and the last one where logits are computed.
    const uint64_t norms = 2 * static_cast<uint64_t>(layers) * rows + decoded + 1;
    EXPECT_EQ(seen.operator_calls, norms);
    EXPECT_EQ(seen.stats.calls, norms);
    EXPECT_EQ(seen.stats.elements, norms * static_cast<uint64_t>(parameters.config.hidden_size));
    const double mean_square =
        seen.stats.sum_sq_error.value() / static_cast<double>(seen.stats.elements);
    EXPECT_NEAR(std::sqrt(mean_square), 0.05, 0.02);

    request.aqn = false;
    const GenerateResult clean = engine->Generate(request).value();
    EXPECT_EQ(clean.groups[0].aqn_sigma, 0.0);
    EXPECT_GT(clean.groups[0].counters.Aqn().operator_calls, 0u);
    EXPECT_EQ(clean.groups[0].counters.Aqn().stats.elements, 0u);
    EXPECT_FALSE(numerics::CheckAqnSeen(plan, layers, versions, clean.groups[0].counters).ok());
  }
}

TEST(DecodeEngine, DecodesWithTheWeightsItIsGivenWhateverIsInstalled) {
  const Parameters first = TinyParameters(TinyConfig(), 1);
  const Parameters second = TinyParameters(TinyConfig(), 2);
  const numerics::AqnPlan plan = ConstantAqn();
  auto engine = EngineWith(first, 1, 7);
  const InstalledWeights held = engine->Installed();
  ASSERT_THAT(engine->Install(second, 8, {.plan = &plan, .sigma = 0.05}), IsOk());
  GenerateRequest request = RequestFor({3}, nullptr);
  request.aqn = true;
  const auto swap = [](const StepState&) { return StepDecision::kSwapWeights; };
  const GenerateResult pinned =
      engine->Generate(request, {.between_steps = swap, .weights = [&] { return held; }}).value();
  EXPECT_EQ(pinned.swaps, 0u);
  EXPECT_EQ(pinned.groups[0].aqn_sigma, 0.0) << "version 7 has none";
  for (const Completion& completion : pinned.groups[0].completions) {
    EXPECT_EQ(completion.versions.size(), 1u);
    EXPECT_EQ(completion.versions[0].version, 7u);
  }
  const GenerateResult newest = engine->Generate(request, {.between_steps = swap}).value();
  EXPECT_EQ(newest.groups[0].completions[0].versions[0].version, 8u);
  EXPECT_EQ(newest.groups[0].aqn_sigma, 0.05);
  EXPECT_FALSE(engine->Generate(request, {.weights = [] { return InstalledWeights(); }}).ok());
}

TEST(DecodeEngine, StopsAtStopIdsAndAtTheLimit) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const GenerateResult result =
      EngineWith(parameters)->Generate(RequestFor({1, 2, 3, 4}, nullptr)).value();
  int stopped = 0;
  const auto is_stop = [](int32_t id) { return id == 3 || id == 17 || id == 40; };
  for (const GeneratedGroup& group : result.groups) {
    for (const Completion& completion : group.completions) {
      const auto first =
          std::find_if(completion.token_ids.begin(), completion.token_ids.end(), is_stop);
      EXPECT_EQ(completion.truncated, first == completion.token_ids.end());
      if (completion.truncated) {
        EXPECT_EQ(completion.token_ids.size(), 24u);
      } else {
        EXPECT_EQ(first + 1, completion.token_ids.end());
        ++stopped;
      }
      EXPECT_EQ(completion.logprobs.size(), completion.token_ids.size());
    }
  }
  EXPECT_GT(stopped, 0);
}

TEST(DecodeEngine, WeightsSwapBetweenStepsAndTokensRememberTheirVersion) {
  const Parameters first = TinyParameters(TinyConfig(), 1);
  const Parameters second = TinyParameters(TinyConfig(), 2);
  auto engine = EngineWith(first, 1, 7);
  GenerateRequest request = RequestFor({3}, nullptr);
  request.stop_ids.clear();
  const GenerateResult before = engine->Generate(request).value();
  const GenerateResult swapped =
      engine
          ->Generate(request, {.between_steps =
                                   [&](const StepState& state) {
                                     if (state.decode_steps != 10) return StepDecision::kContinue;
                                     EXPECT_TRUE(engine->Install(second, 8, {}).ok());
                                     return StepDecision::kSwapWeights;
                                   }})
          .value();
  EXPECT_EQ(swapped.swaps, 1u);
  for (size_t s = 0; s < 5; ++s) {
    const Completion& a = before.groups[0].completions[s];
    const Completion& b = swapped.groups[0].completions[s];
    EXPECT_THAT(b.versions, ::testing::ElementsAre(VersionRun{7, 11}, VersionRun{8, 13}));
    EXPECT_TRUE(std::equal(b.token_ids.begin(), b.token_ids.begin() + 11, a.token_ids.begin()));
    EXPECT_NE(a.logprobs, b.logprobs);
  }
  EXPECT_EQ(engine->InstalledVersion().value(), 8u);
}

TEST(DecodeEngine, AHookCancels) {
  const Parameters parameters = TinyParameters(TinyConfig());
  auto engine = EngineWith(parameters);
  const auto result =
      engine->Generate(RequestFor({1}, nullptr),
                       {.between_steps = [](const StepState&) { return StepDecision::kCancel; }});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(engine->Generate(RequestFor({1}, nullptr)).ok());
}

TEST(DecodeEngine, AqnActsOnlyWhereItIsAskedFor) {
  const Parameters parameters = TinyParameters(TinyConfig());
  auto clean = EngineWith(parameters);
  auto noisy = DecodeEngine::Create({.config = parameters.config}).value();
  numerics::AqnPlan plan;
  plan.enabled = true;
  plan.schedule = numerics::AqnSchedule::kConstant;
  plan.sigma_start = 0.05;
  plan.total_steps = 10;
  const numerics::AqnReport report =
      noisy->Install(parameters, 4, {.plan = &plan, .sigma = 0.05, .run_seed = 11}).value();
  EXPECT_EQ(report.norms_touched, 5);
  GenerateRequest request = RequestFor({3}, nullptr);
  const GenerateResult expected = clean->Generate(request).value();
  EXPECT_EQ(Recorded(noisy->Generate(request).value()), Recorded(expected));
  request.aqn = true;
  EXPECT_NE(Recorded(noisy->Generate(request).value()), Recorded(expected));
}

TEST(DecodeEngine, RefusesWhatItCannotDo) {
  const Parameters parameters = TinyParameters(TinyConfig());
  auto engine = DecodeEngine::Create({.config = parameters.config}).value();
  EXPECT_EQ(engine->Generate(RequestFor({1}, nullptr)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(engine->Install(parameters, 0, {}).ok());
  GenerateRequest request = RequestFor({1}, nullptr);
  request.groups[0].prompt_ids[2] = 83;
  EXPECT_EQ(engine->Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
  request = RequestFor({1}, nullptr);
  request.max_completion_tokens = 250;
  EXPECT_EQ(engine->Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
  request = RequestFor({1, 1}, nullptr);
  EXPECT_EQ(engine->Generate(request).status().code(), absl::StatusCode::kInvalidArgument);
  numerics::NoiseSpec spec;
  spec.enabled = true;
  spec.error_scale = 0.1;
  spec.all_ops = true;
  const auto policy = numerics::NoisePolicy::Create(spec, {.num_layers = 2}).value();
  EXPECT_EQ(engine->Generate(RequestFor({1}, &policy)).status().code(),
            absl::StatusCode::kUnimplemented);
  Parameters broken = TinyParameters(TinyConfig());
  broken.named[1].second.data_ptr<float>()[0] = std::nanf("");
  ASSERT_TRUE(engine->Install(broken, 1, {}).ok());
  EXPECT_EQ(engine->Generate(RequestFor({1}, nullptr)).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace temper::model
