// AQN in both engines: whose draw it is, which weights it touches, and that no clean one changes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/decode_engine.h"
#include "model/train_forward.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::AqnDrawScope;
using numerics::AqnTarget;
using numerics::Operator;
using temper::testing::IsOk;

constexpr uint64_t kSeed = 11;
constexpr uint64_t kVersion = 4;
constexpr double kSigma = 0.2;

ModelConfig ConfigWithHeadNorms() {
  ModelConfig config = TinyConfig();
  config.architecture = "Qwen3ForCausalLM";
  config.qkv_bias = false;
  config.qk_norm = true;
  return config;
}

numerics::AqnPlan PlanOf(AqnDrawScope draw, std::vector<std::string> targets = {}) {
  return {.enabled = true,
          .schedule = numerics::AqnSchedule::kConstant,
          .sigma_start = kSigma,
          .total_steps = 2000,
          .draw = draw,
          .target_modules = std::move(targets)};
}

// Every norm there is.
const std::vector<std::string> kAllNorms = {"*_layernorm", "q_norm", "k_norm", "model.norm"};

AqnInstall InstallOf(const numerics::AqnPlan& plan, uint64_t worker = 0) {
  return {.plan = &plan, .sigma = kSigma, .step = 4, .run_seed = kSeed, .worker = worker};
}

GenerateRequest RequestFor(std::vector<uint64_t> scopes, bool aqn = true) {
  GenerateRequest request;
  for (const uint64_t scope : scopes) {
    request.groups.push_back({.scope = scope,
                              .prompt_ids = TinyPrompt(9, 83, static_cast<int64_t>(scope)),
                              .samples = 3});
  }
  request.max_completion_tokens = 12;
  request.seed = kSeed;
  request.aqn = aqn;
  return request;
}

std::unique_ptr<DecodeEngine> EngineWith(const Parameters& parameters, const AqnInstall& aqn,
                                         int threads = 1) {
  auto engine = DecodeEngine::Create({.config = parameters.config, .threads = threads}).value();
  EXPECT_THAT(engine->Install(parameters, kVersion, aqn), IsOk());
  return engine;
}

std::vector<float> LogProbsOf(const GeneratedGroup& group) {
  std::vector<float> all;
  for (const Completion& completion : group.completions) {
    all.insert(all.end(), completion.logprobs.begin(), completion.logprobs.end());
  }
  return all;
}

std::vector<float> LogProbsOf(const GenerateResult& result) {
  std::vector<float> all;
  for (const GeneratedGroup& group : result.groups) {
    const std::vector<float> own = LogProbsOf(group);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

// The learner's log-probs of what was generated, under the AQN it was sampled under.
std::vector<float> Replay(const Parameters& parameters, const GenerateRequest& request,
                          const GenerateResult& result, const numerics::VersionAqn& aqn,
                          uint64_t worker, numerics::NoiseCounters* counters = nullptr) {
  std::vector<TrainGroup> groups;
  for (size_t g = 0; g < request.groups.size(); ++g) {
    groups.push_back({.group_index = request.groups[g].scope,
                      .prompt_ids = request.groups[g].prompt_ids,
                      .worker = worker});
    for (uint32_t s = 0; s < request.groups[g].samples; ++s) {
      groups.back().completions.push_back({s, result.groups[g].completions[s].token_ids});
    }
  }
  auto model = TrainModel::Create(parameters, {.threads = 3, .head_rows = 7}).value();
  const LogProbs pass =
      model
          ->Forward(groups, {.noise = {.run_seed = kSeed}, .aqn = aqn, .gradients = false},
                    counters)
          .value();
  const float* values = pass.logprobs.data_ptr<float>();
  return {values, values + pass.logprobs.numel()};
}

TEST(AqnEngines, TheLearnerReplaysEveryDrawBitForBit) {
  const Parameters parameters = TinyParameters(ConfigWithHeadNorms());
  const uint64_t worker = numerics::AqnWorker("rollout_worker-1");
  for (const auto draw :
       {AqnDrawScope::kPerVersion, AqnDrawScope::kPerGroup, AqnDrawScope::kPerWorker}) {
    for (const auto& targets : {std::vector<std::string>(), kAllNorms}) {
      const numerics::AqnPlan plan = PlanOf(draw, targets);
      auto engine = EngineWith(parameters, InstallOf(plan, worker), 2);
      const GenerateRequest request = RequestFor({3, 8, 5});
      const GenerateResult result = engine->Generate(request).value();
      const numerics::VersionAqn aqn = {
          .plan = &plan, .sigma = kSigma, .step = 4, .run_seed = kSeed, .policy_version = kVersion};
      numerics::NoiseCounters counters;
      EXPECT_EQ(Replay(parameters, request, result, aqn, worker, &counters), LogProbsOf(result));
      EXPECT_NE(Replay(parameters, request, result, {}, worker), LogProbsOf(result));
      const std::vector<uint64_t> versions = {kVersion};
      EXPECT_THAT(numerics::CheckAqnSeen(plan, 2, versions, result.groups[1].counters), IsOk());
      EXPECT_FALSE(
          numerics::CheckAqnSeen(plan, 2, versions, counters, numerics::Phase::kTrain).ok())
          << "the plan leaves the learner's norms alone";
      numerics::AqnPlan both = plan;
      both.in_learner = true;
      EXPECT_THAT(numerics::CheckAqnSeen(both, 2, versions, counters, numerics::Phase::kTrain),
                  IsOk());
    }
  }
}

TEST(AqnEngines, EveryGroupHasADrawOfItsOwnWhateverElseIsInTheBatch) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const numerics::AqnPlan plan = PlanOf(AqnDrawScope::kPerGroup);
  const GenerateResult together =
      EngineWith(parameters, InstallOf(plan), 3)->Generate(RequestFor({4, 9, 2})).value();
  const GenerateResult alone =
      EngineWith(parameters, InstallOf(plan))->Generate(RequestFor({9})).value();
  EXPECT_EQ(LogProbsOf(together.groups[1]), LogProbsOf(alone.groups[0]));
  EXPECT_EQ(together.groups[1].counters, alone.groups[0].counters);
  // What the draws did to the same norms differs between the groups.
  const numerics::NoiseRowId norm = {numerics::Phase::kRollout, numerics::Direction::kForward, 0,
                                     Operator::kInputNorm, numerics::TensorRole::kWeightNoise};
  const auto share = [&](size_t g) {
    return together.groups[g].counters.rows().at(norm).stats.AchievedScale();
  };
  EXPECT_NE(share(0), share(1));
  EXPECT_NE(share(1), share(2));
}

TEST(AqnEngines, AVersionsDrawsAreToldApartByTheirReports) {
  const Parameters parameters = TinyParameters(TinyConfig());
  const auto report_of = [&](AqnDrawScope draw, const std::string& worker) {
    const numerics::AqnPlan plan = PlanOf(draw);
    auto engine = DecodeEngine::Create({.config = parameters.config}).value();
    return engine->Install(parameters, kVersion, InstallOf(plan, numerics::AqnWorker(worker)))
        .value();
  };
  const auto shared = report_of(AqnDrawScope::kPerVersion, "a");
  EXPECT_EQ(shared, report_of(AqnDrawScope::kPerVersion, "b"));
  EXPECT_EQ(shared, report_of(AqnDrawScope::kPerGroup, "b")) << "what the version's draw would do";
  EXPECT_NE(report_of(AqnDrawScope::kPerWorker, "a").checksum,
            report_of(AqnDrawScope::kPerWorker, "b").checksum);
  EXPECT_EQ(report_of(AqnDrawScope::kPerWorker, "a"), report_of(AqnDrawScope::kPerWorker, "a"));
}

TEST(AqnEngines, HeadNormsAreTouchedWhereTheyAreNamedAndNowhereElse) {
  const Parameters parameters = TinyParameters(ConfigWithHeadNorms());
  const auto touched = [&](std::vector<std::string> targets) {
    const numerics::AqnPlan plan = PlanOf(AqnDrawScope::kPerVersion, std::move(targets));
    EXPECT_THAT(numerics::ValidateAqn(plan, {.num_layers = 2, .qk_norm = true}), IsOk());
    const GenerateResult result =
        EngineWith(parameters, InstallOf(plan))->Generate(RequestFor({3})).value();
    std::vector<std::string> names;
    for (const auto& [id, row] : result.groups[0].counters.rows()) {
      if (row.stats.changed > 0) names.push_back(numerics::AqnTargetName({id.layer, id.op}));
    }
    return names;
  };
  EXPECT_THAT(touched({}),
              ::testing::UnorderedElementsAre("layers.0.input_norm", "layers.0.post_attention_norm",
                                              "layers.1.input_norm", "layers.1.post_attention_norm",
                                              "final_norm"));
  EXPECT_THAT(touched({"layers.1.**"}), ::testing::UnorderedElementsAre(
                                            "layers.1.input_norm", "layers.1.post_attention_norm"))
      << "a wildcard names no norm of heads";
  EXPECT_THAT(
      touched({"layers.0.self_attn.q_norm", "k_norm"}),
      ::testing::UnorderedElementsAre("layers.0.q_norm", "layers.0.k_norm", "layers.1.k_norm"));
}

// A plan of any kind; it may be one that ValidateAqn refuses.
numerics::AqnPlan RandomPlan(uint64_t trial) {
  const uint64_t key = base::RandomKey(77, base::Purpose::kTest, trial);
  uint32_t index = 0;
  const auto below = [&](uint64_t bound) { return base::UniformBelow(key, index++, bound); };
  numerics::AqnPlan plan = PlanOf(static_cast<AqnDrawScope>(below(3)));
  plan.sigma_mode = static_cast<numerics::SigmaMode>(below(2));
  plan.in_learner = below(2) == 0;
  plan.final_norm = below(3) != 0;
  for (const char* pattern : {"q_norm", "layers.0.**", "layers.1.self_attn.k_norm", "*_layernorm",
                              "model.norm", "post_attention_norm"}) {
    if (below(3) == 0) plan.target_modules.emplace_back(pattern);
  }
  plan.layers.enabled = below(2) == 0;
  plan.layers.default_multiplier = static_cast<double>(below(2));
  if (below(2) == 0) plan.layers.layer_multipliers[static_cast<int>(below(2))] = 1.5;
  return plan;
}

TEST(AqnEngines, WhatIsConfiguredIsWhatIsCountedInBothEngines) {
  const Parameters parameters = TinyParameters(ConfigWithHeadNorms());
  const std::vector<uint64_t> versions = {kVersion};
  int ran = 0;
  for (uint64_t trial = 0; trial < 80; ++trial) {
    const numerics::AqnPlan plan = RandomPlan(trial);
    if (!numerics::ValidateAqn(plan, {.num_layers = 2, .qk_norm = true}).ok()) continue;
    SCOPED_TRACE(trial);
    ++ran;
    auto engine = EngineWith(parameters, InstallOf(plan, trial));
    GenerateRequest request = RequestFor({3, 8});
    request.max_completion_tokens = 4;
    const GenerateResult result = engine->Generate(request).value();
    numerics::NoiseCounters counters = result.groups[1].counters;
    const numerics::VersionAqn aqn = {
        .plan = &plan, .sigma = kSigma, .step = 4, .run_seed = kSeed, .policy_version = kVersion};
    EXPECT_EQ(Replay(parameters, request, result, aqn, trial, &counters), LogProbsOf(result));
    EXPECT_THAT(numerics::CheckAqnSeen(plan, 2, versions, counters), IsOk());
    size_t norms = 0;
    for (const auto& [id, row] : counters.rows()) {
      if (id.role != numerics::TensorRole::kWeightNoise) continue;
      const bool configured =
          numerics::AqnMultiplier(plan, {id.layer, id.op}, /*num_layers=*/2, 4) > 0.0;
      EXPECT_EQ(row.stats.changed > 0, configured) << numerics::NoiseRowName(id);
      EXPECT_EQ(row.stats.calls, configured ? row.operator_calls : 0) << numerics::NoiseRowName(id);
      ++norms;
    }
    EXPECT_EQ(norms, 2u * 9u) << "every norm was counted by the rollout and by the learner";
  }
  EXPECT_GT(ran, 40);
}

TEST(AqnEngines, AThousandNoisyVersionsLeaveTheBaseWeightsAsTheyWere) {
  const Parameters parameters = TinyParameters(ConfigWithHeadNorms());
  const uint64_t hash = HashParameters(parameters);
  auto engine = DecodeEngine::Create({.config = parameters.config}).value();
  auto trainer = TrainModel::Create(parameters, {}).value();
  ASSERT_THAT(engine->Install(parameters, 0, {}), IsOk());
  const std::vector<float> clean =
      LogProbsOf(engine->Generate(RequestFor({3}, /*aqn=*/false)).value());
  uint64_t last_checksum = 0;
  for (uint64_t version = 1; version <= 1000; ++version) {
    const auto draw = static_cast<AqnDrawScope>(version % 3);
    const numerics::AqnPlan plan = PlanOf(draw, kAllNorms);
    AqnInstall aqn = InstallOf(plan, version);
    aqn.step = static_cast<int64_t>(version);
    const numerics::AqnReport report = engine->Install(parameters, version, aqn).value();
    ASSERT_EQ(report.norms_touched, 9) << version;
    ASSERT_NE(report.checksum, last_checksum) << "the version drew what the one before it did";
    last_checksum = report.checksum;
    GenerateRequest request = RequestFor({3});
    request.max_completion_tokens = 3;
    const GenerateResult result = engine->Generate(request).value();
    TrainGroup group = {
        .group_index = 3, .prompt_ids = request.groups[0].prompt_ids, .worker = version};
    group.completions.push_back({0, result.groups[0].completions[0].token_ids});
    ASSERT_THAT(trainer->Forward({&group, 1},
                                 {.aqn = {.plan = &plan,
                                          .sigma = kSigma,
                                          .step = static_cast<int64_t>(version),
                                          .run_seed = kSeed,
                                          .policy_version = version},
                                  .gradients = false},
                                 nullptr),
                IsOk());
    if (version % 100 == 0) {
      ASSERT_EQ(HashParameters(parameters), hash) << version;
      ASSERT_EQ(HashParameters(trainer->parameters()), hash) << version;
    }
  }
  EXPECT_EQ(LogProbsOf(engine->Generate(RequestFor({3}, /*aqn=*/false)).value()), clean)
      << "the engine's own clean copy";
}

}  // namespace
}  // namespace temper::model
