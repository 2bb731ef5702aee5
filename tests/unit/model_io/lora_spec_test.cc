#include "model/io/lora_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace temper::model {
namespace {

using numerics::LoraSelection;
using numerics::Operator;
using temper::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  config.vocab_size = 100;
  config.hidden_size = 40;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.intermediate_size = 56;
  config.max_position_embeddings = 64;
  return config;
}

LoraSelection Selection(std::vector<std::string> targets, std::vector<std::string> excludes = {}) {
  return {.enabled = true,
          .rank = 4,
          .alpha = 8.0,
          .target_modules = std::move(targets),
          .exclude_modules = std::move(excludes)};
}

std::vector<std::string> Paths(const LoraSelection& selection) {
  std::vector<std::string> paths;
  const LoraSpec spec = MakeLoraSpec(Config(), selection).value();
  for (const LoraModule& module : spec.modules) paths.push_back(module.path());
  return paths;
}

TEST(LoraSpec, AdaptsEveryLinearOfEveryDecoderLayerByDefault) {
  const LoraSpec spec = MakeLoraSpec(Config(), Selection({}, {"lm_head"})).value();
  EXPECT_EQ(spec.modules.size(), 7u * 3u);
  EXPECT_EQ(spec.modules, AdaptableModules(Config()));
  EXPECT_FLOAT_EQ(spec.scale(), 2.0f);
}

TEST(LoraSpec, WithoutEnabledThereIsNoAdapter) {
  LoraSelection selection = Selection({"nothing_like_this"});
  selection.enabled = false;
  EXPECT_FALSE(MakeLoraSpec(Config(), selection).value().enabled());
}

TEST(LoraSpec, PatternsSelectByPathAndByShortName) {
  EXPECT_THAT(Paths(Selection({"layers.1.self_attn.*"}, {"k"})),
              ElementsAre("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj",
                          "model.layers.1.self_attn.o_proj"));
  EXPECT_THAT(Paths(Selection({"down_proj", "layers.0.*.q"}, {"layers.2"})),
              ElementsAre("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj",
                          "model.layers.1.mlp.down_proj"));
}

TEST(LoraSpec, EveryMistakeIsNamed) {
  EXPECT_THAT(MakeLoraSpec(Config(), Selection({"q_prok", "lm_head"}, {"layers.7"})).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("target_modules: 'q_prok' selects no linear"),
                             HasSubstr("'lm_head' selects no linear"),
                             HasSubstr("lm_head takes no adapter"),
                             HasSubstr("exclude_modules: 'layers.7'"))));
  EXPECT_THAT(MakeLoraSpec(Config(), Selection({"q"}, {"self_attn"})).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("leave no linear")));
  LoraSelection selection = Selection({"k_proj"});  // [12, 40]
  selection.rank = 13;
  EXPECT_THAT(MakeLoraSpec(Config(), selection).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("13 is outside 1 to 12")));
  selection.rank = 12;
  selection.alpha = 0.0;
  EXPECT_THAT(MakeLoraSpec(Config(), selection).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("alpha: 0 is not positive")));
}

TEST(LoraSpec, TensorsAndTheirCountFollowFromTheModules) {
  const LoraSpec spec = MakeLoraSpec(Config(), Selection({"layers.2.mlp.down"})).value();
  const std::vector<ExpectedTensor> tensors = LoraTensors(spec);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "model.layers.2.mlp.down_proj.lora_A.weight");
  EXPECT_THAT(tensors[0].shape, ElementsAre(4, 56));
  EXPECT_EQ(tensors[1].name, "model.layers.2.mlp.down_proj.lora_B.weight");
  EXPECT_THAT(tensors[1].shape, ElementsAre(40, 4));
  EXPECT_EQ(TrainedWeights(Config(), spec), 4 * 56 + 40 * 4);
  EXPECT_THAT(NoiseShape(Config(), spec).lora_layers, ElementsAre(2));
  // 100 x 40 twice, 40 norms (7), and per layer q, k, v, o and the three of the MLP.
  EXPECT_EQ(TrainedWeights(Config(), LoraSpec()),
            2 * 4000 + 7 * 40 + 3 * (2 * 24 * 40 + 2 * 12 * 40 + 3 * 56 * 40));
}

}  // namespace
}  // namespace temper::model
