#include "model/io/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/status_matchers.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Golden(const std::string& model) {
  std::ifstream file("tests/golden/" + model + "/config.json");
  return Json::parse(file);
}

void ExpectRefused(const std::string& model, const std::string& key, const Json& value,
                   const std::string& message) {
  Json json = Golden(model);
  json[key] = value;
  EXPECT_THAT(ParseModelConfig(json.dump()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)))
      << key;
}

TEST(ModelConfigTest, ReadsQwen2) {
  const auto config = ParseModelConfig(Golden("tiny_qwen2").dump());
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(config->hidden_size, 32);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->qk_norm);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
}

TEST(ModelConfigTest, ReadsRopeThetaWhereverItStands) {
  Json json = Golden("tiny_llama");
  EXPECT_EQ(ParseModelConfig(json.dump())->rope_theta, 100000.0);
  json.erase("rope_parameters");
  json["rope_theta"] = 5000.0;
  EXPECT_EQ(ParseModelConfig(json.dump())->rope_theta, 5000.0);
}

TEST(ModelConfigTest, WhatIsWrittenReadsBackEqual) {
  for (const char* model : {"tiny_qwen2", "tiny_qwen3", "tiny_llama"}) {
    auto config = ParseModelConfig(Golden(model).dump());
    ASSERT_THAT(config, IsOk());
    config->eos_token_ids = {2, 0};
    const auto again = ParseModelConfig(ModelConfigToJson(*config));
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(*again, *config) << model;
  }
}

TEST(ModelConfigTest, AddsTheEndTokensOfTheGenerationConfig) {
  auto config = ParseModelConfig(Golden("tiny_qwen2").dump());
  ASSERT_THAT(config, IsOk());
  ASSERT_THAT(MergeGenerationConfig(R"({"eos_token_id": [7, 2], "pad_token_id": 9})", *config),
              IsOk());
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 7));
  EXPECT_EQ(config->pad_token_id, 0) << "config.json had one";
  EXPECT_THAT(MergeGenerationConfig(R"({"eos_token_id": "x"})", *config),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ModelConfigTest, RefusesWhatItDoesNotSupportByName) {
  ExpectRefused("tiny_llama", "architectures", {"MixtralForCausalLM"}, "MixtralForCausalLM");
  ExpectRefused("tiny_llama", "hidden_act", "gelu", "activation gelu");
  ExpectRefused("tiny_llama", "attention_bias", true, "attention_bias");
  ExpectRefused("tiny_llama", "mlp_bias", true, "mlp_bias");
  ExpectRefused("tiny_llama", "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}, "llama3");
  ExpectRefused("tiny_llama", "quantization_config", {{"bits", 4}}, "quantization_config");
  ExpectRefused("tiny_qwen2", "use_sliding_window", true, "use_sliding_window");
}

TEST(ModelConfigTest, RefusesSizesThatCannotBe) {
  ExpectRefused("tiny_llama", "hidden_size", nullptr, "\"hidden_size\" is missing");
  ExpectRefused("tiny_llama", "hidden_size", -1, "\"hidden_size\" must be");
  ExpectRefused("tiny_llama", "hidden_size", 1.5, "\"hidden_size\" must be an integer");
  ExpectRefused("tiny_llama", "num_attention_heads", 0, "num_attention_heads");
  ExpectRefused("tiny_llama", "num_hidden_layers", 1023, "num_hidden_layers");
  ExpectRefused("tiny_llama", "num_key_value_heads", 3, "does not divide");
  ExpectRefused("tiny_llama", "head_dim", 15, "even");
  ExpectRefused("tiny_llama", "rms_norm_eps", 0.0, "rms_norm_eps");
  ExpectRefused("tiny_llama", "vocab_size", 1e300, "vocab_size");
}

TEST(ModelConfigTest, RefusesTextThatIsNotJson) {
  EXPECT_THAT(ParseModelConfig("{\"hidden_size\": 3"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(ParseModelConfig(""), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace temper::model
