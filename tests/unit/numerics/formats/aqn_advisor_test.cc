#include "numerics/formats/aqn_advisor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "numerics/formats/sensitivity_labels.h"
#include "tests/support/status_matchers.h"

namespace temper::numerics {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using enum AqnPriority;

AqnAdvice Of(NumberFormat format, double sqnr_db, double dead_zone,
             TrainingMode training = TrainingMode::kFull) {
  const std::vector<double> db = {sqnr_db}, dead = {dead_zone};
  return AdviseAqn({.format = format, .training = training, .weights = {db, dead}}).value();
}

TEST(AqnAdvisor, GivesTheFirstRowThatMatches) {
  const AqnAdvice critical = Of(NumberFormat::kMxfp4, 17.99, 0.0);
  EXPECT_EQ(critical.priority, kCritical);
  EXPECT_EQ(critical.sigma_start, 0.05);
  EXPECT_EQ(critical.sigma_end, 0.0005);
  const AqnAdvice recommended = Of(NumberFormat::kMxfp4, 18.0, 0.11);
  EXPECT_EQ(recommended.priority, kRecommended);
  EXPECT_EQ(recommended.sigma_start, 0.02);
  EXPECT_EQ(Of(NumberFormat::kMxfp4, 20.0, 0.11).priority, kRecommended);
  EXPECT_EQ(Of(NumberFormat::kMxfp4, 20.01, 0.11).priority, kOptional);
  const AqnAdvice optional = Of(NumberFormat::kMxfp4, 18.0, 0.10);
  EXPECT_EQ(optional.priority, kOptional);
  EXPECT_EQ(optional.sigma_end, 0.0001);
  EXPECT_EQ(Of(NumberFormat::kMxfp4, 22.0, 0.5).priority, kOptional);
  EXPECT_EQ(Of(NumberFormat::kFp8, 22.01, 0.5).priority, kSkip);
}

TEST(AqnAdvisor, TheExampleOf18Point59DbIsOptionalAndNotCritical) {
  EXPECT_EQ(Of(NumberFormat::kMxfp4, 18.59, 0.08).priority, kOptional);
}

TEST(AqnAdvisor, KnowsTheScenarios) {
  EXPECT_EQ(AdviseAqn({}).value().priority, kNone);
  EXPECT_EQ(Of(NumberFormat::kFp8, 31.0, 0.0, TrainingMode::kLora).priority, kCritical);
  EXPECT_EQ(Of(NumberFormat::kNvfp4, 19.0, 0.12).priority, kOptional);
  EXPECT_EQ(Of(NumberFormat::kNvfp4, 17.0, 0.12).priority, kCritical);
}

TEST(AqnAdvisor, ReadsTheMedianOfTheRoleThatIsWorse) {
  const std::vector<double> weight_db = {30, 21, 5}, weight_dead = {0.0, 0.05, 0.9};
  const std::vector<double> input_db = {19, 19, 40}, input_dead = {0.2, 0.3, 0.1};
  AdvisorInputs inputs = {.format = NumberFormat::kMxfp4,
                          .weights = {weight_db, weight_dead},
                          .inputs = {input_db, input_dead}};
  AqnAdvice advice = AdviseAqn(inputs).value();
  EXPECT_EQ(advice.priority, kOptional);
  EXPECT_EQ(advice.sqnr_db, 21.0);
  EXPECT_EQ(advice.reason, "18 to 22 dB: median SQNR of the weights 21.00 dB, dead zone 5.0 %");
  inputs.quantized_inputs = true;
  advice = AdviseAqn(inputs).value();
  EXPECT_EQ(advice.priority, kRecommended);
  EXPECT_EQ(advice.dead_zone, 0.2);
  EXPECT_THAT(advice.reason, HasSubstr("of the inputs 19.00 dB"));
}

TEST(AqnAdvisor, RefusesToAdviseWithoutMeasurements) {
  const std::vector<double> db = {20.0}, none;
  EXPECT_THAT(AdviseAqn({.format = NumberFormat::kMxfp4, .weights = {db, none}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 and 0")));
  const std::vector<double> nan = {std::numeric_limits<double>::quiet_NaN()};
  EXPECT_THAT(AdviseAqn({.format = NumberFormat::kMxfp4, .weights = {nan, db}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not finite")));
  EXPECT_THAT(
      AdviseAqn({.format = NumberFormat::kMxfp4, .quantized_inputs = true, .weights = {db, db}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("inputs")));
}

TEST(SensitivityLabels, FollowTheQuantilesOfTheNamedMetric) {
  using enum SensitivityLabel;
  const std::vector<double> values = {1, 2, 3, 4, 5, 6};
  EXPECT_THAT(LabelByQuantiles(values).value(),
              ElementsAre(kLow, kLow, kMedium, kMedium, kHigh, kHigh));
  EXPECT_THAT(LabelByQuantiles(values, {.smaller_is_worse = true}).value(),
              ElementsAre(kHigh, kHigh, kMedium, kMedium, kLow, kLow));
  EXPECT_THAT(LabelByQuantiles(values, {.low_quantile = 0.0, .high_quantile = 0.8}).value(),
              ElementsAre(kMedium, kMedium, kMedium, kMedium, kMedium, kHigh));
  const std::vector<double> equal = {7, 7, 7};
  EXPECT_THAT(LabelByQuantiles(equal).value(), ElementsAre(kMedium, kMedium, kMedium));
  EXPECT_THAT(LabelByQuantiles({}), IsOk());
  EXPECT_THAT(LabelByQuantiles(values, {.low_quantile = 0.7, .high_quantile = 0.6}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  const std::vector<double> infinite = {1.0, std::numeric_limits<double>::infinity()};
  EXPECT_THAT(LabelByQuantiles(infinite),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("value 1")));
}

TEST(SensitivityLabels, BecomeTheMultipliersOfTheVariablePreset) {
  EXPECT_EQ(Multiplier(SensitivityLabel::kHigh), 1.5);
  EXPECT_EQ(Multiplier(SensitivityLabel::kMedium), 1.2);
  EXPECT_EQ(Multiplier(SensitivityLabel::kLow), 1.0);
  EXPECT_EQ(Multiplier(SensitivityLabel::kLow, {.low = 0.0}), 0.0);
}

}  // namespace
}  // namespace temper::numerics
