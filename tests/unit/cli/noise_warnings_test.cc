#include "cli/noise_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

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
  const auto warnings = AqnWarnings(ConstantPlan(0.05), 1, SmallFirstNorm());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("125 % of the RMS of model.layers.0.input_layernorm.weight"));
}

TEST(AqnWarningsTest, RelativeSigmaFollowsTheNorm) {
  numerics::AqnPlan plan = ConstantPlan(0.05);
  plan.sigma_mode = numerics::SigmaMode::kRelativeToRms;
  EXPECT_THAT(AqnWarnings(plan, 1, SmallFirstNorm()), IsEmpty());
}

TEST(AqnWarningsTest, SaysNothingWhereAqnIsOff) {
  numerics::AqnPlan plan = ConstantPlan(0.05);
  plan.enabled = false;
  EXPECT_THAT(AqnWarnings(plan, 1, SmallFirstNorm()), IsEmpty());
}

}  // namespace
}  // namespace temper::cli
