#include "model/io/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/io/safetensors.h"
#include "services/base/files.h"
#include "services/base/text.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::model {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kBase[] = "tests/golden/tiny_qwen2";
constexpr char kGolden[] = "tests/golden/tiny_qwen2_lora";  // as PEFT saved it

ModelConfig Base() { return LoadModelConfig(kBase).value(); }

nlohmann::json ConfigOf(const std::string& dir) {
  return nlohmann::json::parse(base::ReadFile(dir + "/adapter_config.json", 1 << 20).value());
}

// The golden adapter with one field of its configuration changed.
absl::Status ReadWith(const char* field, const nlohmann::json& value) {
  TempDir dir;
  std::filesystem::copy(kGolden, dir.File("adapter"));
  nlohmann::json config = ConfigOf(kGolden);
  config[field] = value;
  std::ofstream(dir.File("adapter") + "/adapter_config.json") << config;
  return ReadPeftAdapter(dir.File("adapter"), Base()).status();
}

absl::Status Write(const std::string& dir, const PeftAdapter& adapter) {
  return WritePeftAdapter(
      dir, {.spec = adapter.spec, .tensors = ViewsOf(adapter.tensors), .base_model = kBase},
      Base().num_layers);
}

TEST(PeftAdapter, ReadsWhatPeftWrote) {
  EXPECT_TRUE(IsPeftAdapter(kGolden));
  EXPECT_FALSE(IsPeftAdapter(kBase));
  EXPECT_EQ(BaseOfPeftAdapter(kGolden).value(), kBase);
  const auto adapter = ReadPeftAdapter(kGolden, Base());
  ASSERT_THAT(adapter, IsOk());
  EXPECT_EQ(adapter->spec.rank, 4);
  EXPECT_EQ(adapter->spec.alpha, 6.0);
  EXPECT_EQ(adapter->spec.modules.size(), 8u);  // q, v, o, down of two layers
  EXPECT_EQ(adapter->tensors.size(), 16u);
  EXPECT_THAT(adapter->tensors.at("model.layers.1.mlp.down_proj.lora_A.weight").shape,
              ElementsAre(4, 56));
}

TEST(PeftAdapter, WhatIsWrittenHasPeftsLayoutAndReadsBackEqual) {
  const PeftAdapter adapter = ReadPeftAdapter(kGolden, Base()).value();
  TempDir dir;
  ASSERT_THAT(Write(dir.File("adapter"), adapter), IsOk());
  const auto again = ReadPeftAdapter(dir.File("adapter"), Base());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->spec, adapter.spec);
  for (const auto& [name, tensor] : adapter.tensors) {
    EXPECT_EQ(again->tensors.at(name).values, tensor.values) << name;
  }
  const auto ours =
      SafetensorsFile::Open(dir.File("adapter") + "/adapter_model.safetensors").value();
  const auto theirs =
      SafetensorsFile::Open(std::string(kGolden) + "/adapter_model.safetensors").value();
  ASSERT_EQ(ours->entries().size(), theirs->entries().size());
  for (const auto& [name, entry] : theirs->entries()) {
    ASSERT_TRUE(ours->entries().contains(name)) << name;
    EXPECT_EQ(ours->entries().at(name).shape, entry.shape) << name;
  }
  const nlohmann::json config = ConfigOf(dir.File("adapter"));
  for (const char* field : {"peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha",
                            "bias", "lora_dropout", "fan_in_fan_out"}) {
    EXPECT_EQ(config[field], ConfigOf(kGolden)[field]) << field;
  }
  EXPECT_EQ(config["target_modules"], nlohmann::json({"q_proj", "v_proj", "o_proj", "down_proj"}));
}

TEST(PeftAdapter, AModuleOfSomeLayersAloneIsNamedByItsPath) {
  PeftAdapter adapter = ReadPeftAdapter(kGolden, Base()).value();
  adapter.spec.modules.erase(adapter.spec.modules.begin());  // q of layer 0
  for (const char* matrix : {"A", "B"}) {
    adapter.tensors.erase(base::Cat("model.layers.0.self_attn.q_proj.lora_", matrix, ".weight"));
  }
  TempDir dir;
  ASSERT_THAT(Write(dir.File("adapter"), adapter), IsOk());
  EXPECT_EQ(ConfigOf(dir.File("adapter"))["target_modules"],
            nlohmann::json({"model.layers.1.self_attn.q_proj", "v_proj", "o_proj", "down_proj"}));
  EXPECT_EQ(ReadPeftAdapter(dir.File("adapter"), Base()).value().spec, adapter.spec);
}

TEST(PeftAdapter, RefusesByNameWhatWouldBeAnotherFormula) {
  EXPECT_THAT(ReadWith("r", 4), IsOk());
  EXPECT_THAT(ReadWith("peft_type", "IA3"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("peft_type")));
  for (const auto& [field, value] :
       std::vector<std::pair<const char*, nlohmann::json>>{{"use_dora", true},
                                                           {"use_rslora", true},
                                                           {"bias", "all"},
                                                           {"rank_pattern", {{"q_proj", 8}}},
                                                           {"modules_to_save", {"lm_head"}}}) {
    EXPECT_THAT(ReadWith(field, value),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(field)));
  }
  EXPECT_THAT(ReadWith("r", 5),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has shape [4, 32]")));
  EXPECT_THAT(ReadWith("lora_alpha", 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lora_alpha")));
  ModelConfig shallow = Base();
  shallow.num_layers = 1;
  EXPECT_THAT(ReadPeftAdapter(kGolden, shallow).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layers.1")));
  EXPECT_THAT(ReadPeftAdapter(kBase, Base()).status(), StatusIs(absl::StatusCode::kNotFound));
}

TEST(PeftAdapter, WritesNoTensorsButTheSpecs) {
  PeftAdapter adapter = ReadPeftAdapter(kGolden, Base()).value();
  adapter.tensors["another"] = {.shape = {1}, .values = {0.0f}};
  TempDir dir;
  EXPECT_THAT(Write(dir.File("a"), adapter), StatusIs(absl::StatusCode::kInvalidArgument));
  adapter.tensors.erase("another");
  adapter.tensors.begin()->second.shape = {1};
  EXPECT_THAT(Write(dir.File("b"), adapter), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(AddLowRank, AddsTheScaledProductOfBAndA) {
  const std::vector<float> a = {1, 2, 3, -1, 0, 4};  // [2, 3]
  const std::vector<float> b = {2, 1, 0, -3};        // [2, 2]
  std::vector<float> w = {10, 20, 30, 40, 50, 60};
  AddLowRank(a, b, 2, 0.5, w);
  // B A = [[1, 4, 10], [3, 0, -12]]
  EXPECT_THAT(w, ElementsAre(10.5f, 22, 35, 41.5f, 50, 54));
}

}  // namespace
}  // namespace temper::model
