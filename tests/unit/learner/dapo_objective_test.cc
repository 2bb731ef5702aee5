#include "learner/dapo_objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/learner/builders.h"

namespace temper::learner {
namespace {

using ::temper::testing::GroupWith;
using ::testing::Each;
using ::testing::ElementsAre;

// Two groups of two completions with three tokens each.
std::vector<TrainSequence> TwoGroups(const std::vector<RolloutGroup>& groups,
                                     const DapoRules& rules) {
  std::vector<TrainSequence> sequences;
  for (const RolloutGroup& group : groups) {
    for (TrainSequence& sequence : SequencesOf(group, rules)) sequences.push_back(sequence);
  }
  return sequences;
}

TEST(DapoObjectiveTest, AdvantagesOfAGroupAreItsNormalisedRewards) {
  const RolloutGroup group = GroupWith(0, {1, 0});
  const auto sequences = SequencesOf(group, {});
  EXPECT_NEAR(sequences[0].advantage, 0.5 / (std::sqrt(0.5) + 1e-6), 1e-12);
  EXPECT_NEAR(sequences[1].advantage, -sequences[0].advantage, 1e-12);
}

TEST(DapoObjectiveTest, FactorsAreOverTheWholeMiniBatch) {
  const std::vector<RolloutGroup> groups = {GroupWith(0, {1, 0}), GroupWith(1, {0, 1})};
  const auto sequences = TwoGroups(groups, {});
  int64_t tokens = 0;
  DapoRules rules;
  EXPECT_THAT(AggregationFactors(sequences, rules, &tokens), Each(1.0 / 12.0));
  EXPECT_EQ(tokens, 12);
  rules.aggregation = LossAggregation::kSeqMeanTokenSum;
  EXPECT_THAT(AggregationFactors(sequences, rules, nullptr), Each(1.0 / 4.0));
  rules.aggregation = LossAggregation::kSeqMeanTokenMean;
  EXPECT_THAT(AggregationFactors(sequences, rules, nullptr), Each(1.0 / 12.0));
  rules.aggregation = LossAggregation::kConstant;
  rules.max_completion_tokens = 8;
  EXPECT_THAT(AggregationFactors(sequences, rules, nullptr), Each(1.0 / 32.0));
}

TEST(DapoObjectiveTest, MaskedSequencesAreInNoSum) {
  RolloutGroup group = GroupWith(0, {1, 0});
  group.completions[1].truncated = true;
  DapoRules rules;
  rules.mask_truncated = true;
  const auto sequences = SequencesOf(group, rules);
  int64_t tokens = 0;
  const auto factors = AggregationFactors(sequences, rules, &tokens);
  EXPECT_THAT(factors, ElementsAre(1.0 / 3.0, 0.0));
  EXPECT_EQ(tokens, 3);
  std::vector<float> derivatives(3, 9.0f);
  ObjectiveStats stats;
  SequenceObjective(sequences[1], sequences[1].rollout_logprobs, factors[1], rules, derivatives,
                    &stats);
  EXPECT_THAT(derivatives, Each(0.0f));
  EXPECT_EQ(stats.tokens, 0);
}

TEST(DapoObjectiveTest, OldLogprobOfThePassItselfGivesThePolicyGradient) {
  const RolloutGroup group = GroupWith(0, {1, 0});
  DapoRules rules;
  rules.importance.mode = numerics::ImportanceMode::kNone;
  const auto sequences = SequencesOf(group, rules);
  std::vector<float> derivatives(3);
  ObjectiveStats stats;
  SequenceObjective(sequences[0], std::vector<float>{-3.0f, -0.1f, -7.0f}, 0.5, rules, derivatives,
                    &stats);
  EXPECT_THAT(derivatives, Each(static_cast<float>(-0.5 * sequences[0].advantage)));
  EXPECT_NEAR(stats.loss, -1.5 * sequences[0].advantage, 1e-12);
}

TEST(DapoObjectiveTest, ImportanceWeightsAreCutAtTheirCap) {
  const RolloutGroup group = GroupWith(0, {1, 0});
  const DapoRules rules;  // token weights, cap 2
  const auto sequences = SequencesOf(group, rules);
  std::vector<float> logprobs(sequences[0].rollout_logprobs.begin(),
                              sequences[0].rollout_logprobs.end());
  logprobs[0] += 1.0f;            // e > 2: cut
  logprobs[1] -= std::log(4.0f);  // 1 / 4
  std::vector<float> derivatives(3);
  ObjectiveStats stats;
  SequenceObjective(sequences[0], logprobs, 1.0, rules, derivatives, &stats);
  EXPECT_EQ(stats.weights_cut, 1);
  EXPECT_NEAR(derivatives[0], -2.0 * sequences[0].advantage, 1e-5);
  EXPECT_NEAR(derivatives[1], -0.25 * sequences[0].advantage, 1e-5);
  EXPECT_NEAR(stats.EffectiveSampleShare(), 3.25 * 3.25 / (3 * (4 + 0.0625 + 1)), 1e-5);
}

TEST(DapoObjectiveTest, RecordedOldLogprobsLetTheClipCarryTheGap) {
  const RolloutGroup group = GroupWith(0, {1, 0});
  DapoRules rules;
  rules.old_logprob = OldLogprob::kRecorded;
  const auto sequences = SequencesOf(group, rules);
  std::vector<float> logprobs(sequences[0].rollout_logprobs.begin(),
                              sequences[0].rollout_logprobs.end());
  logprobs[0] += 1.0f;
  std::vector<float> derivatives(3);
  ObjectiveStats stats;
  SequenceObjective(sequences[0], logprobs, 1.0, rules, derivatives, &stats);
  EXPECT_EQ(stats.clipped_high, 1);
  EXPECT_EQ(derivatives[0], 0.0f);
  EXPECT_EQ(stats.weights_cut, 0);
  EXPECT_NEAR(derivatives[1], -sequences[0].advantage, 1e-6);
}

TEST(DapoObjectiveTest, GapEstimatorsFollowTheirDefinitions) {
  GapStats gap;
  gap.Add(std::vector<float>{-1.0f, -2.0f}, std::vector<float>{-1.5f, -2.0f});
  EXPECT_NEAR(gap.abs_mean(), 0.25, 1e-12);
  EXPECT_NEAR(gap.abs_max, 0.5, 1e-12);
  EXPECT_NEAR(gap.k1(), -0.25, 1e-12);
  EXPECT_NEAR(gap.k3(), (std::exp(0.5) - 1.5) / 2, 1e-12);
}

TEST(DapoObjectiveTest, MicroBatchesCountAPromptOncePerGroup) {
  const std::vector<RolloutGroup> groups = {GroupWith(0, {1, 0}), GroupWith(1, {0, 1})};
  const auto sequences = TwoGroups(groups, {});  // prompt 2, completions 3
  EXPECT_THAT(CutMicroBatches(sequences, 8), ElementsAre(2, 4));
  EXPECT_THAT(CutMicroBatches(sequences, 13), ElementsAre(3, 4));
  EXPECT_THAT(CutMicroBatches(sequences, 1), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(CutMicroBatches(sequences, 0), ElementsAre(4));
}

TEST(DapoObjectiveTest, MicroBatchesOfOneVersionEndWhereItChanges) {
  const std::vector<RolloutGroup> groups = {GroupWith(0, {1, 0}, 4), GroupWith(1, {0, 1}, 5)};
  const auto sequences = TwoGroups(groups, {});
  EXPECT_THAT(CutMicroBatches(sequences, 0, {.one_version = true}), ElementsAre(2, 4));
}

TEST(DapoObjectiveTest, MicroBatchesOfWholeGroupsNeverCutOne) {
  const std::vector<RolloutGroup> groups = {GroupWith(0, {1, 0}), GroupWith(1, {0, 1})};
  const auto sequences = TwoGroups(groups, {});  // 8 rows a group
  for (const int64_t tokens : {1, 8, 13, 15}) {
    EXPECT_THAT(CutMicroBatches(sequences, tokens, {.whole_groups = true}), ElementsAre(2, 4));
  }
  EXPECT_THAT(CutMicroBatches(sequences, 16, {.whole_groups = true}), ElementsAre(4));
}

TEST(DapoObjectiveTest, MiniBatchesAreAsEvenAsPossible) {
  EXPECT_THAT(CutMiniBatches(7, 3), ElementsAre(3, 5, 7));
  EXPECT_THAT(CutMiniBatches(2, 4), ElementsAre(1, 2));
  EXPECT_TRUE(CutMiniBatches(0, 4).empty());
}

}  // namespace
}  // namespace temper::learner
