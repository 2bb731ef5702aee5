#pragma once

// A small model and batches to train it on.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "learner/policy_trainer.h"
#include "learner/rollout_group.h"
#include "model/io/loader.h"
#include "model/parameters.h"

namespace temper::testing {

inline constexpr char kTinyModel[] = "tests/golden/tiny_qwen2";

inline model::Parameters TinyParameters() {
  auto loaded = model::LoadModel(kTinyModel);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  auto parameters = model::ParametersFromModel(*loaded);
  EXPECT_TRUE(parameters.ok()) << parameters.status();
  return *std::move(parameters);
}

// The policy `noisy_ops` with relative Gaussian error of `scale` on every decoder linear.
inline numerics::NoisePolicy PolicyForTest(double scale, numerics::LearnerNoise learner_noise) {
  numerics::NoiseSpec spec;
  spec.enabled = true;
  spec.error_scale = scale;
  spec.learner_noise = learner_noise;
  auto policy = numerics::NoisePolicy::Create(spec, {.num_layers = 2});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

inline std::unique_ptr<learner::PolicyTrainer> TrainerForTest(
    const model::Parameters& parameters, learner::PolicyTrainerOptions options) {
  auto trainer = learner::PolicyTrainer::Create(parameters, std::move(options));
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  return *std::move(trainer);
}

// A group of `samples` completions of different lengths and made-up log-probs, a function of its
// index; the accuracies alternate.
inline learner::RolloutGroup MadeUpGroup(uint64_t group_index, int samples, uint64_t version = 0) {
  learner::RolloutGroup group;
  group.group_index = group_index;
  group.attempt = 1;
  group.oldest_version = version;
  group.newest_version = version;
  uint32_t state = static_cast<uint32_t>(group_index) * 2654435761u + 17u;
  const auto next = [&state] { return (state = state * 1664525u + 1013904223u) >> 8; };
  for (uint64_t t = 0; t < 4 + group_index % 3; ++t) {
    group.prompt_token_ids.push_back(static_cast<int32_t>(next() % 288));
  }
  for (int i = 0; i < samples; ++i) {
    learner::SampledCompletion completion;
    const uint32_t tokens = 2 + next() % 6;
    for (uint32_t t = 0; t < tokens; ++t) {
      completion.token_ids.push_back(static_cast<int32_t>(next() % 288));
      completion.rollout_logprobs.push_back(-5.0f - 0.01f * static_cast<float>(next() % 100));
    }
    completion.versions = {{.version = version, .tokens = tokens}};
    completion.score.accuracy = i % 2 == 0 ? 1.0 : 0.0;
    completion.score.reward = completion.score.accuracy;
    group.completions.push_back(std::move(completion));
  }
  return group;
}

inline std::vector<learner::RolloutGroup> MadeUpBatch(uint64_t first, int groups, int samples,
                                                      uint64_t version = 0) {
  std::vector<learner::RolloutGroup> batch;
  for (int i = 0; i < groups; ++i) {
    batch.push_back(MadeUpGroup(first + static_cast<uint64_t>(i), samples, version));
  }
  return batch;
}

// Every weight of a policy, in order.
inline std::vector<float> AllWeights(const model::Parameters& parameters) {
  std::vector<float> all;
  for (const auto& [name, tensor] : parameters.named) {
    const std::span<const float> values = learner::FloatsOf(tensor);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace temper::testing
