#include "cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper::cli {
namespace {

using ::testing::HasSubstr;

TEST(ClockTextTest, ShowsHoursOnlyWhenThereAreSome) {
  EXPECT_EQ(ClockText(absl::Seconds(5)), "0:05");
  EXPECT_EQ(ClockText(absl::Seconds(130)), "2:10");
  EXPECT_EQ(ClockText(absl::Seconds(3723)), "1:02:03");
  EXPECT_EQ(ClockText(absl::InfiniteDuration()), "?");
}

TEST(StepLineTest, ShowsWhatAPersonAsksFor) {
  const auto line = StepLine(
      R"({"step": 12, "reward_mean": 0.412, "accuracy_raw": 0.38, "sigma": 0.0158, "staleness_max": 0,
          "logprob_abs_diff_mean": 0.00001, "tokens_generated": 9000, "skipped": false})",
      60, absl::Seconds(3), absl::Seconds(130));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(*line, HasSubstr("step  12/60"));
  EXPECT_THAT(*line, HasSubstr("reward  0.412"));
  EXPECT_THAT(*line, HasSubstr("acc  38.0%"));
  EXPECT_THAT(*line, HasSubstr("sigma 0.0158"));
  EXPECT_THAT(*line, HasSubstr("tok/s   3000"));
  EXPECT_THAT(*line, HasSubstr("left 2:10"));
}

TEST(StepLineTest, SaysThatAStepWasSkipped) {
  const auto line =
      StepLine(R"({"step": 1, "skipped": true})", 2, absl::Seconds(1), absl::InfiniteDuration());
  ASSERT_TRUE(line.ok());
  EXPECT_THAT(*line, HasSubstr("skipped"));
}

TEST(StepLineTest, RefusesWhatIsNoObject) {
  EXPECT_FALSE(StepLine("[1]", 2, absl::Seconds(1), absl::Seconds(1)).ok());
}

TEST(ActivityLineTest, ShowsProgressOfTheNewestEvaluation) {
  v1::GetStatusReply status;
  status.set_state(v1::RUN_STATE_EVALUATING);
  for (const uint64_t version : {0, 60}) {
    v1::EvaluationProgress* evaluation = status.add_evaluations();
    evaluation->set_version(version);
    evaluation->set_questions(100);
    evaluation->set_done(version == 0 ? 100 : 30);
  }
  v1::Peer* worker = status.add_members();
  worker->set_role(v1::ROLE_ROLLOUT_WORKER);
  worker->set_healthy(true);
  EXPECT_EQ(ActivityLine(status), "evaluating version 60: 30 of 100 completions, 1 worker");
}

TEST(SummaryTableTest, PutsBeforeBesideAfterWithIntervalsAndTests) {
  const auto table = SummaryTable(
      R"({"reward_rule": "strict", "steps": 60, "steps_skipped": 1, "wall_seconds": 200.0,
          "by_scale": [
            {"version": 0, "error_scale": 0.1, "accuracy": 0.661, "interval": [0.635, 0.686]},
            {"version": 60, "error_scale": 0.1, "accuracy": 0.723, "interval": [0.70, 0.75]}],
          "paired": [{"error_scale": 0.1, "difference": 0.062, "interval": [0.04, 0.08],
                      "p_value": 0.0002, "test": "paired_bootstrap_over_questions", "questions": 1319}]})",
      "runs/x");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(*table, HasSubstr("10 %"));
  EXPECT_THAT(*table, HasSubstr("66.1 % [63.5, 68.6]"));
  EXPECT_THAT(*table, HasSubstr("72.3 % [70.0, 75.0]"));
  EXPECT_THAT(*table, HasSubstr("+6.2 points [+4.0, +8.0], p = 0.0002"));
  EXPECT_THAT(*table, HasSubstr("runs/x/summary.json"));
}

TEST(SummaryTableTest, NamesTheErrorAndCallsOnlyAShareAPercentage) {
  const auto table = SummaryTable(
      R"({"reward_rule": "strict", "error_type": "truncation", "steps": 1, "steps_skipped": 0,
          "wall_seconds": 2.0, "by_scale": [
            {"version": 0, "error_scale": 0.1, "accuracy": 0.5, "interval": [0.4, 0.6]}]})",
      "runs/x");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(*table, HasSubstr("under truncation error"));
  EXPECT_THAT(*table, HasSubstr("0.1  "));
  EXPECT_THAT(*table, Not(HasSubstr("10 %")));
}

TEST(SummaryTableTest, NamesTheInjectionOfAnEvaluation) {
  const auto table = SummaryTable(
      R"({"reward_rule": "strict", "error_type": "relative_gaussian", "injection": "mxfp4 weight",
          "steps": 1, "steps_skipped": 0, "wall_seconds": 2.0, "by_scale": [
            {"version": 0, "error_scale": 0.0, "accuracy": 0.5, "interval": [0.4, 0.6]},
            {"version": 0, "error_scale": 0.0, "injected": true, "accuracy": 0.3,
             "interval": [0.2, 0.4]},
            {"version": 0, "error_scale": 0.1, "injected": true, "accuracy": 0.2,
             "interval": [0.1, 0.3]}]})",
      "runs/x");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(*table, HasSubstr("\n0 %                  50.0 % [40.0, 60.0]"));
  EXPECT_THAT(*table, HasSubstr("\nmxfp4 weight         30.0 % [20.0, 40.0]"));
  EXPECT_THAT(*table, HasSubstr("\nmxfp4 weight, 10 %   20.0 % [10.0, 30.0]"));
}

TEST(SummaryTableTest, RefusesARecordThatIsNone) {
  EXPECT_FALSE(SummaryTable("nonsense", "runs/x").ok());
  EXPECT_FALSE(SummaryTable(R"({"by_scale": [{"version": 0}]})", "runs/x").ok());
}

}  // namespace
}  // namespace temper::cli
