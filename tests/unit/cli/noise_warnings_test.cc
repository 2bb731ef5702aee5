#include "cli/noise_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace temper::cli {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const numerics::ModelShape kOneLayer = {.num_layers = 1};

// One layer; the first norm is small, the others have RMS 1.
model::TensorMap SmallFirstNorm() {
  return {{"model.layers.0.input_layernorm.weight", {{4}, {0.04f, -0.04f, 0.04f, 0.04f}}},
          {"model.layers.0.post_attention_layernorm.weight", {{4}, {1, 1, 1, 1}}},
          {"model.norm.weight", {{4}, {1, 1, 1, 1}}}};
}

numerics::AqnPlan ConstantPlan(double sigma) {
  numerics::AqnPlan plan;
  plan.enabled = true;
  plan.schedule = numerics::AqnSchedule::kConstant;
  plan.sigma_start = sigma;
  plan.total_steps = 3;
  return plan;
}

TEST(AqnWarningsTest, NamesTheNormThatIsSmallBesideItsNoise) {
  const auto warnings = AqnWarnings(ConstantPlan(0.05), kOneLayer, SmallFirstNorm());
  ASSERT_THAT(warnings, IsOk());
  ASSERT_EQ(warnings->size(), 1u);
  EXPECT_THAT((*warnings)[0],
              HasSubstr("125 % of the RMS of model.layers.0.input_layernorm.weight"));
}

TEST(AqnWarningsTest, RelativeSigmaFollowsTheNorm) {
  numerics::AqnPlan plan = ConstantPlan(0.05);
  plan.sigma_mode = numerics::SigmaMode::kRelativeToRms;
  const auto warnings = AqnWarnings(plan, kOneLayer, SmallFirstNorm());
  ASSERT_THAT(warnings, IsOk());
  EXPECT_THAT(*warnings, IsEmpty());
}

TEST(AqnWarningsTest, SaysNothingWhereAqnIsOff) {
  numerics::AqnPlan plan = ConstantPlan(0.05);
  plan.enabled = false;
  const auto warnings = AqnWarnings(plan, kOneLayer, SmallFirstNorm());
  ASSERT_THAT(warnings, IsOk());
  EXPECT_THAT(*warnings, IsEmpty());
}

TEST(AqnWarningsTest, NoiseOnALinearAboveATenthOfItsRmsIsRefusedUnlessForced) {
  numerics::AqnPlan plan = ConstantPlan(0.005);
  plan.target_modules = {"o_proj"};
  const model::TensorMap weights = {
      {"model.layers.0.self_attn.o_proj.weight", {{2, 2}, {0.03f, -0.03f, 0.03f, 0.03f}}}};
  EXPECT_THAT(AqnWarnings(plan, kOneLayer, weights),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("17 % of the RMS")));
  plan.sigma_start = 0.001;
  EXPECT_THAT(AqnWarnings(plan, kOneLayer, weights), IsOk());
  plan.sigma_start = 0.02;
  plan.force = true;
  const auto forced = AqnWarnings(plan, kOneLayer, weights);
  ASSERT_THAT(forced, IsOk());
  EXPECT_EQ(forced->size(), 1u) << "and warned of";
}

}  // namespace
}  // namespace temper::cli
