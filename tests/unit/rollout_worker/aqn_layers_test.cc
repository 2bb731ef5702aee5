// From a recipe's layer lists to what an engine computes: the lists of the findings' experiments
// act on exactly their layers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/parameters.h"
#include "numerics/gaussian.h"
#include "rollout_worker/engine_sampler.h"
#include "services/base/files.h"
#include "services/base/random_key.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/rollout_worker/setup_for_test.h"

namespace temper::rollout_worker {
namespace {

using numerics::AqnTarget;
using numerics::Operator;
using ::temper::testing::IsOk;

constexpr uint64_t kVersion = 3;
constexpr double kSigma = 0.05;

// A narrow model of the 28 layers that the findings' lists are of.
model::ModelFiles DeepFiles() {
  model::ModelFiles files = QuickstartFiles();
  nlohmann::json shape = nlohmann::json::parse(files.at("config.json"));
  shape.update({{"hidden_size", 16},
                {"num_hidden_layers", 28},
                {"num_attention_heads", 2},
                {"num_key_value_heads", 1},
                {"head_dim", 8},
                {"intermediate_size", 24}});
  files["config.json"] = shape.dump();
  return files;
}

// A setup whose recipe has this layer_sigma_config, read as a file is.
std::unique_ptr<RunSetup> SetupWith(const std::string& layers) {
  testing::TempDir dir;
  const std::string path = dir.File("recipe.yaml");
  EXPECT_THAT(base::WriteFileAtomically(
                  path, absl::StrCat("dataset: {name: gsm-arith}\n"
                                     "trainer:\n  noise_injection:\n    enabled: true\n"
                                     "    schedule: constant\n    sigma_start: 0.05\n"
                                     "    layer_sigma_config: ",
                                     layers, "\n")),
              IsOk());
  auto config = config::LoadRunConfig(path, {});
  EXPECT_THAT(config, IsOk());
  auto setup = MakeRunSetup("run-1", *config, DeepFiles());
  EXPECT_THAT(setup, IsOk());
  return *std::move(setup);
}

std::shared_ptr<const weights::WeightVersion> Publish(const model::Parameters& parameters,
                                                      double sigma) {
  std::vector<weights::PublishedTensor> tensors;
  for (const auto& [name, view] : model::ViewsOf(parameters)) {
    tensors.push_back({.spec = {name, view.shape, "float32"}, .bytes = std::as_bytes(view.values)});
  }
  return *weights::BuildVersion({.run_id = "run-1",
                                 .timeline = 1,
                                 .version = kVersion,
                                 .aqn_sigma = sigma,
                                 .aqn_step = kVersion},
                                tensors, 1 << 20);
}

model::GeneratedGroup Sample(const RunSetup& setup, const model::Parameters& parameters,
                             double sigma) {
  auto sampler = MakeEngineSampler(setup, "worker-0");
  EXPECT_THAT(sampler, IsOk());
  EXPECT_THAT((*sampler)->Install(*Publish(parameters, sigma)), IsOk());
  const model::GenerateRequest request = {
      .groups = {{.scope = 4, .prompt_ids = {5, 6, 7}, .samples = 2}},
      .max_completion_tokens = 8,
      .seed = 1,
      .policy = &setup.policy,
      .aqn = true};
  auto result = (*sampler)->Generate(request, {});
  EXPECT_THAT(result, IsOk());
  return std::move(result->groups[0]);
}

// The model with the norms of these layers (kNoLayer: the final one) perturbed by hand.
model::Parameters PerturbedByHand(const RunSetup& setup, const model::Parameters& parameters,
                                  const std::map<int, double>& multipliers) {
  model::Parameters perturbed = model::CloneParameters(parameters);
  for (const auto& [layer, multiplier] : multipliers) {
    const std::vector<Operator> norms =
        layer < 0 ? std::vector{Operator::kFinalNorm}
                  : std::vector{Operator::kInputNorm, Operator::kPostAttentionNorm};
    for (const Operator norm : norms) {
      const std::span<float> gamma =
          model::MutableViewsOf(perturbed).at(numerics::OperatorPath(norm, layer) + ".weight");
      std::vector<float> normals(gamma.size());
      numerics::FillGaussian(normals.data(), static_cast<int64_t>(normals.size()),
                             base::AqnKey(setup.config.seed(), kVersion),
                             numerics::Site(layer, norm, numerics::TensorRole::kWeightOperand));
      const auto scale = static_cast<float>(kSigma * multiplier);
      for (size_t c = 0; c < gamma.size(); ++c) gamma[c] = std::fma(scale, normals[c], gamma[c]);
    }
  }
  return perturbed;
}

void ExpectActsExactlyOn(const std::string& layers, const std::map<int, double>& multipliers) {
  SCOPED_TRACE(layers);
  const std::unique_ptr<RunSetup> setup = SetupWith(layers);
  const model::Parameters parameters = *model::InitializeParameters(setup->model, 3);
  const model::GeneratedGroup noisy = Sample(*setup, parameters, kSigma);
  const model::GeneratedGroup by_hand =
      Sample(*setup, PerturbedByHand(*setup, parameters, multipliers), 0.0);
  const model::GeneratedGroup clean = Sample(*setup, parameters, 0.0);
  for (size_t s = 0; s < 2; ++s) {
    EXPECT_EQ(noisy.completions[s].token_ids, by_hand.completions[s].token_ids);
    EXPECT_EQ(noisy.completions[s].logprobs, by_hand.completions[s].logprobs);
    EXPECT_NE(noisy.completions[s].logprobs, clean.completions[s].logprobs);
  }
  std::map<int, int> touched;  // layer -> norms of which something changed
  for (const auto& [id, row] : noisy.counters.rows()) {
    if (row.stats.changed > 0) ++touched[id.layer];
  }
  std::map<int, int> expected;
  for (const auto& [layer, multiplier] : multipliers) expected[layer] = layer < 0 ? 1 : 2;
  EXPECT_EQ(touched, expected);
}

TEST(AqnLayers, TheTargetedLayersOfE9aAndNoOthers) {
  const std::map<int, double> e9a = {{14, 1}, {15, 1}, {16, 1}, {17, 1}};
  ExpectActsExactlyOn(
      "{enabled: true, default_multiplier: 0, layer_multipliers: {14: 1, 15: 1, 16: 1, 17: 1}}",
      e9a);
  std::map<int, double> preset = e9a;
  preset[numerics::kNoLayer] = 1;
  ExpectActsExactlyOn("{enabled: true, preset: targeted}", preset);
}

TEST(AqnLayers, TheGradedLayersOfE9b) {
  std::map<int, double> e9b = {{numerics::kNoLayer, 1}};
  std::string list;
  for (int layer = 0; layer < 28; ++layer) {
    e9b[layer] = layer >= 14 && layer <= 17 ? 1.5 : layer >= 10 && layer <= 21 ? 1.2 : 1.0;
    if (layer >= 10 && layer <= 21) {
      absl::StrAppend(&list, list.empty() ? "" : ", ", layer, ": ", e9b[layer]);
    }
  }
  ExpectActsExactlyOn(absl::StrCat("{enabled: true, layer_multipliers: {", list, "}}"), e9b);
  ExpectActsExactlyOn("{enabled: true, preset: variable}", e9b);
}

}  // namespace
}  // namespace temper::rollout_worker
