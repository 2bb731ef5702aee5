// What is configured is what is counted, over random configurations of noisy_ops and
// hw_error_injection.

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "model/decode_engine.h"
#include "model/train_forward.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Operator;
using numerics::Phase;
using numerics::TensorRole;
using temper::testing::IsOk;

// A stream of small integers.
class Choices {
 public:
  explicit Choices(uint64_t seed) : key_(base::RandomKey(seed, base::Purpose::kTest, 0)) {}
  uint64_t Below(uint64_t bound) { return base::UniformBelow(key_, index_++, bound); }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  uint64_t key_;
  uint32_t index_ = 0;
};

numerics::NoiseSpec RandomSpec(Choices* choices) {
  const std::vector<numerics::NoiseSpec> types = EveryErrorSpec();
  numerics::NoiseSpec spec = types[choices->Below(types.size())];
  spec.apply_during = static_cast<numerics::ApplyDuring>(choices->Below(3));
  spec.learner_noise = static_cast<numerics::LearnerNoise>(choices->Below(3));
  spec.error_gradient = static_cast<numerics::ErrorGradient>(choices->Below(2));
  spec.noise_key = static_cast<numerics::NoiseKey>(choices->Below(2));
  spec.forward_only = choices->OneIn(4);
  spec.backward_only = choices->OneIn(4);
  spec.target_modules.clear();
  for (const char* name : {"q", "k_proj", "self_attn.*_proj", "mlp", "down", "lm_head"}) {
    if (choices->OneIn(3)) spec.target_modules.emplace_back(name);
  }
  if (choices->OneIn(4)) spec.exclude_modules = {"layers.0.mlp"};
  if (choices->OneIn(4)) spec.target_layers = {1};
  return spec;
}

// An injection on every other policy.
numerics::InjectionSpec RandomInjection(const numerics::NoiseSpec& noise, Choices* choices) {
  const std::vector<numerics::InjectionSpec> all = EveryInjectionSpec();
  numerics::InjectionSpec spec = all[choices->Below(all.size())];
  spec.enabled = choices->OneIn(2);
  spec.apply_during = static_cast<numerics::ApplyDuring>(choices->Below(3));
  spec.learner_noise = noise.learner_noise;
  spec.target_modules.clear();
  for (const char* name : {"q", "v_proj", "mlp.*_proj", "down", "lm_head"}) {
    if (choices->OneIn(3)) spec.target_modules.emplace_back(name);
  }
  if (choices->OneIn(4)) spec.exclude_modules = {"layers.0.mlp"};
  if (choices->OneIn(4)) spec.target_layers = {1};
  return spec;
}

// All four passes of the system over one policy.
numerics::NoiseCounters RunEverything(const Parameters& parameters,
                                      const numerics::NoisePolicy& policy) {
  numerics::NoiseCounters counters;
  auto engine = DecodeEngine::Create({.config = parameters.config}).value();
  EXPECT_THAT(
      engine->Install(parameters, 0, {}, {.policy = &policy.injection(), .run_seed = 3}).status(),
      IsOk());
  GenerateRequest request = {.max_completion_tokens = 8, .seed = 3, .policy = &policy};
  request.groups = {{.scope = 5, .prompt_ids = TinyPrompt(6, 83, 1), .samples = 2}};
  GenerateResult rollout = engine->Generate(request).value();
  counters.Merge(rollout.groups[0].counters);
  TrainGroup group = {.group_index = 5, .prompt_ids = request.groups[0].prompt_ids};
  for (uint32_t s = 0; s < 2; ++s) {
    group.completions.push_back({s, rollout.groups[0].completions[s].token_ids});
  }
  auto model = TrainModel::Create(parameters, {}).value();
  TrainNoise noise = {.policy = &policy, .draw = policy.learner_noise(), .run_seed = 3};
  const LogProbs pass = model->Forward({&group, 1}, {.noise = noise}, &counters).value();
  const std::vector<float> weight(static_cast<size_t>(pass.logprobs.numel()), 0.3f);
  EXPECT_THAT(model->Backward(pass, weight, &counters), IsOk());
  EXPECT_THAT(model->ApplyGradWeightError(noise, &counters), IsOk());
  noise.phase = Phase::kOldLogprob;
  EXPECT_THAT(model->Forward({&group, 1}, {.noise = noise, .gradients = false}, &counters).status(),
              IsOk());
  return counters;
}

void ExpectCountedAsConfigured(const numerics::NoisePolicy& policy,
                               const numerics::NoiseCounters& counters) {
  EXPECT_THAT(numerics::CheckSeen(policy, counters), IsOk());
  int linear_rows = 0;
  for (const auto& [id, row] : counters.rows()) {
    if (!numerics::IsLinear(id.op)) continue;
    if (numerics::IsInjection(id)) {
      EXPECT_TRUE(policy.injection().Error(id.phase, id.direction, id.role, id.op, id.layer).acts())
          << numerics::NoiseRowName(id);
      EXPECT_GT(row.stats.changed, 0u) << numerics::NoiseRowName(id);
      continue;
    }
    ++linear_rows;
    const bool configured = policy.Scale(id.phase, id.direction, id.op, id.layer) > 0.0;
    EXPECT_GT(row.operator_calls, 0u) << numerics::NoiseRowName(id);
    EXPECT_EQ(row.stats.elements > 0, configured) << numerics::NoiseRowName(id);
    // Frozen spikes strike a few features of a device, perhaps none of an operator's.
    const bool may_miss = policy.error_type() == numerics::ErrorType::kSpike &&
                          policy.noise_key() == numerics::NoiseKey::kFrozen;
    if (!configured || !may_miss) {
      EXPECT_EQ(row.stats.changed > 0, configured) << numerics::NoiseRowName(id);
    }
    EXPECT_EQ(row.stats.non_finite, 0u);
  }
  // 7 linears in 2 layers and lm_head: three forward phases, and both gradients.
  EXPECT_EQ(linear_rows, 15 * 5);
}

TEST(NoiseProperty, WhatIsConfiguredIsWhatIsCounted) {
  Choices choices(2026);
  int injections = 0;
  const Parameters parameters = TinyParameters(TinyConfig());
  std::map<numerics::ErrorType, int> ran;
  for (int trial = 0; trial < 120; ++trial) {
    const numerics::NoiseSpec spec = RandomSpec(&choices);
    auto policy = numerics::NoisePolicy::Create(spec, {.num_layers = 2});
    auto injection =
        numerics::InjectionPolicy::Create(RandomInjection(spec, &choices), {.num_layers = 2});
    // forward_only with backward_only, nothing left to perturb, ...
    if (!policy.ok() || !injection.ok()) continue;
    policy->set_injection(*std::move(injection));
    SCOPED_TRACE(std::to_string(trial) + ": " + policy->Describe() + "; " +
                 policy->injection().Describe());
    injections += policy->injection().enabled() ? 1 : 0;
    ExpectCountedAsConfigured(*policy, RunEverything(parameters, *policy));
    ++ran[policy->error_type()];
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(injections, 10);
  EXPECT_EQ(ran.size(), static_cast<size_t>(numerics::kErrorTypeCount)) << "every type came up";
}

}  // namespace
}  // namespace temper::model
