#include "cli/quantize_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "numerics/formats/fake_quantize.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

using numerics::FormatSpec;
using numerics::NumberFormat;
using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::temper::testing::TempDir;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kQwen2[] = "tests/golden/tiny_qwen2";  // tied, two layers
constexpr FormatSpec kMx = {.format = NumberFormat::kMxfp4};

class QuantizeModelTest : public ::testing::Test {
 protected:
  absl::Status Quantize(const QuantizeOptions& options) {
    reports_.clear();
    return QuantizeModel(options, [&](const QuantizedTensor& t) { reports_.push_back(t); });
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const QuantizedTensor& report : reports_) names.push_back(report.name);
    return names;
  }
  // A copy of the golden model stored as bfloat16.
  std::string BFloat16Model() {
    const auto model = model::LoadModel(kQwen2);
    const std::string dir = dir_.File("bf16");
    EXPECT_THAT(model::SaveHuggingFace(dir, {.config = model->config,
                                             .tensors = model::ViewsOf(model->tensors),
                                             .storage = model::StorageType::kBFloat16}),
                IsOk());
    return dir;
  }

  TempDir dir_;
  const std::string out_ = dir_.File("out");
  std::vector<QuantizedTensor> reports_;
};

TEST_F(QuantizeModelTest, QuantizesDecoderLinearsAndNothingElse) {
  ASSERT_THAT(Quantize({.model = kQwen2, .out = out_, .format = kMx}), IsOk());
  const auto before = model::LoadModel(kQwen2), after = model::LoadModel(out_);
  ASSERT_THAT(after, IsOk());
  EXPECT_EQ(after->config, before->config);
  EXPECT_EQ(reports_.size(), 14u);  // seven linears in each of two layers
  const auto quantizer = numerics::FakeQuantizer::Create(kMx, numerics::Operand::kWeight).value();
  for (const auto& [name, tensor] : before->tensors) {
    std::vector<float> expected = tensor.values;
    if (name.find("_proj.weight") != std::string::npos) {
      ASSERT_THAT(quantizer.QuantizeWeight(tensor.shape, tensor.values.data(), expected.data()),
                  IsOk());
      EXPECT_NE(expected, tensor.values);
      EXPECT_THAT(Names(), Contains(name));
    }
    EXPECT_EQ(after->tensors.at(name).values, expected) << name;
  }
  EXPECT_THAT(model::LoadTokenizer(out_), IsOk());
}

TEST_F(QuantizeModelTest, StatisticsAreOfTheValuesThatWereWritten) {
  ASSERT_THAT(Quantize({.model = kQwen2, .out = out_, .format = kMx}), IsOk());
  const auto before = model::LoadModel(kQwen2), after = model::LoadModel(out_);
  for (const QuantizedTensor& report : reports_) {
    double value = 0, error = 0, dead = 0;
    const std::vector<float>& x = before->tensors.at(report.name).values;
    const std::vector<float>& q = after->tensors.at(report.name).values;
    for (size_t i = 0; i < x.size(); ++i) {
      value += double{x[i]} * x[i];
      error += (double{q[i]} - x[i]) * (double{q[i]} - x[i]);
      dead += std::abs(x[i]) > 1e-10f && q[i] == 0.0f ? 1 : 0;
    }
    EXPECT_EQ(report.elements, static_cast<int64_t>(x.size()));
    EXPECT_NEAR(report.sqnr_db, 10 * std::log10(value / error), 1e-9) << report.name;
    EXPECT_NEAR(report.dead_zone, dead / static_cast<double>(x.size()), 1e-12);
  }
}

TEST_F(QuantizeModelTest, BFloat16StaysBFloat16AndHoldsMxfp4Exactly) {
  const std::string source = BFloat16Model();
  ASSERT_THAT(Quantize({.model = source, .out = out_, .format = kMx}), IsOk());
  const auto reader = model::ModelReader::Open(out_);
  ASSERT_THAT(reader, IsOk());
  for (const model::StoredTensor& tensor : (*reader)->tensors()) {
    EXPECT_EQ(tensor.storage, model::StorageType::kBFloat16);
  }
  for (const QuantizedTensor& report : reports_) EXPECT_EQ(report.rounded, 0) << report.name;
  // Twice is once, so the second model is the first.
  ASSERT_THAT(Quantize({.model = out_, .out = dir_.File("again"), .format = kMx}), IsOk());
  for (const QuantizedTensor& report : reports_) EXPECT_EQ(report.sqnr_db, 100.0);
  // NVFP4's scales have 24 bits: bfloat16 rounds the products.
  ASSERT_THAT(
      Quantize(
          {.model = source, .out = dir_.File("nvfp4"), .format = {.format = NumberFormat::kNvfp4}}),
      IsOk());
  EXPECT_GT(reports_.front().rounded, 0);
}

TEST_F(QuantizeModelTest, ReadsAGgufFileAndWritesADirectory) {
  ASSERT_THAT(Quantize({.model = "tests/golden/tiny_llama.gguf", .out = out_, .format = kMx}),
              IsOk());
  const auto before = model::LoadModel("tests/golden/tiny_llama.gguf");
  const auto after = model::LoadModel(out_);
  ASSERT_THAT(after, IsOk());
  EXPECT_EQ(after->tensors.at("model.embed_tokens.weight").values,
            before->tensors.at("model.embed_tokens.weight").values);
  EXPECT_EQ(after->config.eos_token_ids, before->config.eos_token_ids);
  EXPECT_THAT(model::LoadTokenizer(out_), IsOk());
}

TEST_F(QuantizeModelTest, TargetsAndExcludesArePathPatterns) {
  ASSERT_THAT(Quantize({.model = kQwen2,
                        .out = out_,
                        .format = kMx,
                        .targets = {"layers.1.self_attn.*", "gate"},
                        .excludes = {"layers.0.mlp", "v_proj"}}),
              IsOk());
  EXPECT_THAT(Names(), ::testing::ElementsAre("model.layers.1.self_attn.q_proj.weight",
                                              "model.layers.1.self_attn.k_proj.weight",
                                              "model.layers.1.self_attn.o_proj.weight",
                                              "model.layers.1.mlp.gate_proj.weight"));
}

TEST_F(QuantizeModelTest, RefusesWithAReasonAndLeavesNothing) {
  const auto refused = [&](const QuantizeOptions& options, const std::string& reason) {
    EXPECT_THAT(Quantize(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
  };
  refused({.model = kQwen2, .out = dir_.path(), .format = kMx}, "nothing is overwritten");
  refused({.model = kQwen2, .out = out_, .format = kMx, .targets = {"layers.7"}}, "'layers.7'");
  refused({.model = kQwen2, .out = out_, .format = kMx, .targets = {"lm_head"}}, "tied");
  refused({.model = kQwen2, .out = out_, .format = kMx, .targets = {"attention_scores"}},
          "no weight");
  refused(
      {.model = kQwen2, .out = out_, .format = {.format = NumberFormat::kNvfp4, .block_2d = true}},
      "nvfp4 has none");
  EXPECT_THAT(Quantize({.model = dir_.File("none"), .out = out_, .format = kMx}),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

}  // namespace
}  // namespace temper::cli
