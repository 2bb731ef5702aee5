#include "learner/weight_quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "numerics/aqn.h"
#include "numerics/gaussian.h"
#include "services/base/random_key.h"
#include "tests/support/status_matchers.h"

namespace temper::learner {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;

// Decoder linears of 256 x 256 normal values.
class WeightQuantizationTest : public ::testing::Test {
 protected:
  static constexpr int kLayers = 2;
  static constexpr int64_t kSide = 256;

  WeightQuantizationTest() {
    uint32_t site = 0;
    for (const numerics::AqnTarget& linear : numerics::AqnLinears({.num_layers = kLayers})) {
      std::vector<float>& values =
          values_[numerics::OperatorPath(linear.op, linear.layer) + ".weight"];
      values.resize(kSide * kSide);
      numerics::FillGaussian(values.data(), kSide * kSide,
                             base::RandomKey(5, base::Purpose::kTest, 0), site++);
      for (float& value : values) value *= 0.02f;
    }
    for (auto& [name, values] : values_)
      weights_[name] = {.shape = {kSide, kSide}, .values = values};
  }

  std::map<std::string, std::vector<float>> values_;
  model::TensorViewMap weights_;
};

TEST_F(WeightQuantizationTest, NormalWeightsHaveTheKnownNoiseAndDeadZone) {
  const auto quantized = QuantizeWeights(weights_, kLayers);
  ASSERT_THAT(quantized, IsOk());
  ASSERT_EQ(quantized->size(), 2u * 7u * kLayers);
  // docs/numerics.md, "Number formats": 18.86 dB and 8.2 %, 20.44 dB and 6.8 %.
  for (const QuantizedWeight& weight : *quantized) {
    const bool mxfp4 = weight.format == "mxfp4";
    EXPECT_NEAR(weight.sqnr_db, mxfp4 ? 18.86 : 20.44, 0.2) << weight.name;
    EXPECT_NEAR(weight.dead_zone, mxfp4 ? 0.082 : 0.068, 0.005) << weight.name;
  }
}

TEST_F(WeightQuantizationTest, TheSummaryNamesTheMedianAndTheWorst) {
  // One weight whose outliers leave nothing of the rest: a spike in every block.
  std::vector<float>& spiked = values_.at("model.layers.1.mlp.up_proj.weight");
  for (size_t i = 0; i < spiked.size(); i += 16) spiked[i] = 10.0f;
  const auto quantized = QuantizeWeights(weights_, kLayers);
  ASSERT_THAT(quantized, IsOk());
  const std::vector<QuantizationSummary> summaries = Summarize(*quantized);
  ASSERT_EQ(summaries.size(), 2u);
  EXPECT_EQ(summaries[0].format, "mxfp4");
  EXPECT_NEAR(summaries[0].sqnr_db_median, 18.86, 0.2);
  EXPECT_NEAR(summaries[0].dead_zone_median, 0.082, 0.005);
  EXPECT_GT(summaries[0].dead_zone_most, 0.9);
  EXPECT_EQ(summaries[1].format, "nvfp4");
  const auto json = nlohmann::json::parse(QuantizationJson(*quantized));
  EXPECT_EQ(json["nvfp4"]["model.layers.1.mlp.up_proj.weight"]["dead_zone"],
            summaries[1].dead_zone_most);
  EXPECT_TRUE(Summarize({}).empty());
}

TEST_F(WeightQuantizationTest, AModelThatLacksAWeightIsNamed) {
  weights_.erase("model.layers.1.self_attn.k_proj.weight");
  EXPECT_THAT(QuantizeWeights(weights_, kLayers),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("k_proj")));
}

}  // namespace
}  // namespace temper::learner
