#include "scan/localise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace temper::scan {
namespace {

using ::testing::ElementsAre;
using testing::StatusIs;

LayerProfile Layer(double gain) {
  return {.rows = 10,
          .input_gain = gain,
          .update_gain = 0.5,
          .min_gain = 0.9 * gain,
          .max_gain = 1.1 * gain,
          .kurtosis = 3.0,
          .crest = 3.5,
          .near_zero = 0.01,
          .mean_ratio = 0.8,
          .projections = std::vector<double>(kProjections, 0.1)};
}

ModelProfile Healthy() { return {Layer(1.0), Layer(1.1), Layer(1.05), Layer(1.2), Layer(1.0)}; }

int FirstOf(const FaultFinding& finding) {
  return finding.ranking.empty() ? -1 : finding.ranking[0].layer;
}

TEST(RobustZ, HasTheValuesOfAHandWorkedCase) {
  // Median 2; distances 1, 0, 0, 1, 8: MAD 1.
  const double values[] = {1, 2, 2, 3, 10};
  const std::vector<double> z = RobustZ(values);
  EXPECT_NEAR(z[0], -1 / 1.4826, 1e-12);
  EXPECT_NEAR(z[4], 8 / 1.4826, 1e-12);
}

TEST(RobustZ, OfEqualValuesTakesOnePercentOfTheMedianForTheirSpread) {
  const double values[] = {2, 2, 2, 2.2};
  EXPECT_NEAR(RobustZ(values)[3], 0.2 / (1.4826 * 0.02), 1e-9);
  const double zeros[] = {0, 0, 0, 1e-3};
  EXPECT_NEAR(RobustZ(zeros)[3], 1e-3 / (1.4826 * 1e-6), 1e-6);
}

TEST(LocaliseFault, SeesNothingWhereNothingDeparts) {
  const std::vector<ModelProfile> repeats = {Healthy(), Healthy()};
  ModelProfile rounded = Healthy();
  for (LayerProfile& layer : rounded) layer.input_gain *= 1.000001;
  const FaultFinding finding =
      LocaliseFault({.repeats = repeats, .references = {&rounded, 1}}).value();
  EXPECT_EQ(finding.evidence, Evidence::kNone);
  EXPECT_TRUE(finding.ranking.empty());
}

TEST(LocaliseFault, PutsTheLayerFirstAfterWhichAllDepart) {
  ModelProfile faulty = Healthy();
  faulty[2].near_zero = 0.05;
  faulty[3].projections[4] = 0.3;  // what follows departs as well
  faulty[4].input_gain = 1.7;
  const ModelProfile reference = Healthy();
  const FaultFinding finding =
      LocaliseFault({.repeats = {&faulty, 1}, .references = {&reference, 1}}).value();
  EXPECT_EQ(finding.evidence, Evidence::kDeparture);
  EXPECT_EQ(FirstOf(finding), 2);
  EXPECT_EQ(finding.ranking[0].field, "near_zero");
  EXPECT_EQ(finding.symptom, "more values near zero");
  EXPECT_EQ(finding.ranking.size(), 5u);
}

TEST(LocaliseFault, AllowsWhatHealthyDevicesDiffer) {
  // Two healthy devices differ by a thousandth in the first layer; the suspected one by half of
  // that there, and by a fault in layer 3.
  std::vector<ModelProfile> references = {Healthy(), Healthy()};
  references[1][0].kurtosis *= 1.001;
  references[1][1].kurtosis *= 1.002;
  references[1][2].kurtosis *= 1.002;
  references[1][3].kurtosis *= 1.002;
  references[1][4].kurtosis *= 1.002;
  ModelProfile faulty = Healthy();
  faulty[0].kurtosis *= 1.0005;
  faulty[3].kurtosis *= 1.05;
  faulty[4].kurtosis *= 1.08;
  const FaultFinding alone =
      LocaliseFault({.repeats = {&faulty, 1}, .references = {references.data(), 1}}).value();
  EXPECT_EQ(FirstOf(alone), 3);  // 1.7 decades, then 2
  faulty[0].kurtosis = Healthy()[0].kurtosis * 1.0015;
  const FaultFinding one =
      LocaliseFault({.repeats = {&faulty, 1}, .references = {references.data(), 1}}).value();
  EXPECT_EQ(FirstOf(one), 0) << "with one reference rounding of 0.15 % counts as much";
  const FaultFinding both =
      LocaliseFault({.repeats = {&faulty, 1}, .references = references}).value();
  EXPECT_EQ(FirstOf(both), 3);
}

TEST(LocaliseFault, TakesInstabilityBeforeTheReference) {
  std::vector<ModelProfile> repeats = {Healthy(), Healthy()};
  repeats[1][1].crest = 3.6;
  repeats[1][2].crest = 3.7;
  const FaultFinding finding = LocaliseFault({.repeats = repeats, .references = {}}).value();
  EXPECT_EQ(finding.evidence, Evidence::kInstability);
  EXPECT_EQ(FirstOf(finding), 1);
}

TEST(LocaliseFault, WithoutAReferenceNamesTheLayerThatIsUnlikeTheOthers) {
  ModelProfile faulty = Healthy();
  faulty[3].crest = 1.2;
  const FaultFinding finding = LocaliseFault({.repeats = {&faulty, 1}, .references = {}}).value();
  EXPECT_EQ(finding.evidence, Evidence::kOutlier);
  EXPECT_EQ(FirstOf(finding), 3);
  EXPECT_EQ(finding.ranking[0].field, "crest");
}

TEST(LocaliseFault, RefusesProfilesOfDifferentModels) {
  using enum absl::StatusCode;
  const ModelProfile short_one = {Layer(1.0)}, healthy = Healthy();
  EXPECT_THAT(LocaliseFault({.repeats = {}, .references = {}}), StatusIs(kInvalidArgument));
  EXPECT_THAT(LocaliseFault({.repeats = {&healthy, 1}, .references = {&short_one, 1}}),
              StatusIs(kInvalidArgument));
}

}  // namespace
}  // namespace temper::scan
