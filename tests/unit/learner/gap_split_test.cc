#include "learner/gap_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace temper::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

RolloutGroup SampledBy(uint64_t oldest, uint64_t newest) {
  return {.oldest_version = oldest, .newest_version = newest};
}

TEST(GapSplitTest, EveryTermIsTheDifferenceOfNeighboursAndTheyAddUpToTheWhole) {
  const std::vector<float> recorded = {-1.0f, -2.0f}, recreated = {-1.0f, -2.5f},
                           without_aqn = {-1.25f, -2.0f}, current = {-1.5f, -3.0f},
                           without_error = {-1.0f, -3.5f};
  GapSplit split;
  split.Add({recorded, recreated, without_aqn, current, without_error});
  EXPECT_EQ(split.tokens, 2u);
  EXPECT_EQ(split.precision.sum, -0.5);
  EXPECT_EQ(split.aqn.sum, 0.25);
  EXPECT_EQ(split.aqn.abs_sum, 0.75);
  EXPECT_EQ(split.aqn.abs_max, 0.5);
  EXPECT_EQ(split.staleness.sum, -1.25);
  EXPECT_EQ(split.noise.sum, 0.0);
  EXPECT_EQ(split.noise.abs_sum, 1.0);
  EXPECT_EQ(split.whole.sum, -1.5);
  EXPECT_EQ(split.precision.sum + split.aqn.sum + split.staleness.sum + split.noise.sum,
            split.whole.sum);
  EXPECT_EQ(split.MeanOver(split.whole.sum), -0.75);
}

TEST(GapSplitTest, EveryKthStepIsProbed) {
  EXPECT_FALSE(ProbeIsDue(1, 3));
  EXPECT_TRUE(ProbeIsDue(3, 3));
  EXPECT_TRUE(ProbeIsDue(6, 3));
  EXPECT_FALSE(ProbeIsDue(6, 0));
}

TEST(GapSplitTest, TakesTheFirstGroupsThatOneKeptVersionSampled) {
  const std::vector<RolloutGroup> groups = {SampledBy(2, 3), SampledBy(1, 1), SampledBy(3, 3),
                                            SampledBy(2, 2), SampledBy(3, 3)};
  EXPECT_THAT(ChooseProbeGroups(groups, {2, 3}, 2), ElementsAre(2, 3));
  EXPECT_THAT(ChooseProbeGroups(groups, {2, 3}, 9), ElementsAre(2, 3, 4));
  EXPECT_THAT(ChooseProbeGroups(groups, {4}, 2), IsEmpty());
}

}  // namespace
}  // namespace temper::learner
