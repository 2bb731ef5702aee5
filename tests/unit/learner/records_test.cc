#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "learner/metrics_record.h"
#include "learner/rollout_noise.h"
#include "learner/samples_file.h"
#include "model/io/loader.h"
#include "nlohmann/json.hpp"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/learner/builders.h"

namespace temper::learner {
namespace {

using ::nlohmann::json;
using ::temper::testing::GroupWith;
using ::temper::testing::IsOk;

ClosedBatch BatchForTest() {
  ClosedBatch batch;
  batch.train = {GroupWith(4, {1, 0}, 3), GroupWith(6, {1, 1, 0}, 5)};
  batch.zero_variance = {GroupWith(5, {1, 1}, 5)};
  return batch;
}

TEST(MetricsRecordTest, SummarisesTrainedAndZeroVarianceGroups) {
  const RolloutSummary summary = SummarizeRollouts(BatchForTest(), 5);
  EXPECT_EQ(summary.completions, 7u);
  EXPECT_EQ(summary.tokens_generated, 21u);
  EXPECT_DOUBLE_EQ(summary.accuracy_raw, 5.0 / 7.0);
  EXPECT_DOUBLE_EQ(summary.reward_mean_trained, 3.0 / 5.0);
  EXPECT_EQ(summary.staleness_max, 2u);
  EXPECT_DOUBLE_EQ(summary.staleness_mean, 1.0);
}

TEST(MetricsRecordTest, CountsGroupsThatOnlyPenaltiesTellApart) {
  ClosedBatch batch;
  batch.zero_variance = {GroupWith(0, {1, 1})};
  batch.zero_variance[0].completions[1].score.overlong_penalty = -0.5;
  EXPECT_EQ(SummarizeRollouts(batch, 5).groups_overlong_only, 1u);
}

TEST(MetricsRecordTest, EveryFieldThatReadersRelyOnIsThere) {
  StepRecord record;
  record.step = 6;
  record.rollouts = SummarizeRollouts(BatchForTest(), 5);
  const json line = json::parse(MetricsJson(record));
  for (const char* field : {"step",
                            "timeline",
                            "policy_version",
                            "skipped",
                            "reward_mean",
                            "accuracy_raw",
                            "format_rate",
                            "sigma",
                            "entropy",
                            "completion_tokens_mean",
                            "truncated_ratio",
                            "clip_fraction_low",
                            "clip_fraction_high",
                            "grad_norm",
                            "learning_rate",
                            "groups",
                            "staleness_max",
                            "logprob_abs_diff_mean",
                            "logprob_abs_diff_max",
                            "kl_sampler_learner",
                            "tokens_generated",
                            "tokens_trained",
                            "injections",
                            "aqn",
                            "achieved_error_scale",
                            "base_weights_hash",
                            "update_seconds"}) {
    EXPECT_TRUE(line.contains(field)) << field;
  }
  EXPECT_EQ(line["groups"]["trained"], 2);
}

// The rows that a rollout worker's count stands for, `times` times.
numerics::NoiseCounters CountersOf(const v1::InjectionCount& count, int times = 1) {
  RolloutGroup group;
  group.injections.assign(static_cast<size_t>(times), count);
  auto counters = RolloutCountsOf(group);
  EXPECT_THAT(counters, IsOk());
  return *counters;
}

TEST(MetricsRecordTest, InjectionsAreAddedUpByPhaseAndDirection) {
  v1::InjectionCount count;
  count.set_phase("rollout");
  count.set_direction("forward");
  count.set_layer(0);
  count.set_operator_("q");
  count.set_calls(2);
  count.set_elements(100);
  count.set_elements_changed(99);
  count.set_sum_sq_error(0.01);
  count.set_sum_sq_value(4.0);
  StepRecord record;
  record.counters = CountersOf(count, 2);
  const json line = json::parse(MetricsJson(record));
  EXPECT_EQ(line["injections"]["rollout"]["forward"]["elements"], 200);
  EXPECT_NEAR(line["achieved_error_scale"].get<double>(), 0.05, 1e-9);
}

TEST(MetricsRecordTest, AqnIsTheCountOfPerturbedNormsAndNoPartOfTheInjections) {
  v1::InjectionCount count;
  count.set_phase("rollout");
  count.set_direction("forward");
  count.set_layer(1);
  count.set_operator_("input_norm");
  count.set_calls(4);
  count.set_elements(100);
  count.set_elements_changed(98);
  count.set_sum_sq_error(0.25);
  count.set_sum_sq_value(100.0);
  StepRecord record;
  record.counters = CountersOf(count);
  const json line = json::parse(MetricsJson(record));
  EXPECT_EQ(line["aqn"]["norms_run"], 4);
  EXPECT_EQ(line["aqn"]["norms_perturbed"], 4);
  EXPECT_EQ(line["aqn"]["elements"], 100);
  EXPECT_EQ(line["aqn"]["elements_changed"], 98);
  EXPECT_NEAR(line["aqn"]["achieved_sigma"].get<double>(), 0.05, 1e-9);
  EXPECT_NEAR(line["aqn"]["achieved_sigma_over_rms"].get<double>(), 0.05, 1e-9);
  EXPECT_TRUE(line["injections"].empty());
  EXPECT_EQ(line["achieved_error_scale"], 0.0);
}

TEST(MetricsRecordTest, TheSplitGapStandsOnlyInTheLineOfAProbedStep) {
  StepRecord record;
  EXPECT_FALSE(json::parse(MetricsJson(record)).contains("gap_probe"));
  const std::vector<float> recorded = {-1.0f, -2.0f}, clean = {-1.5f, -2.5f};
  record.gap_probe.emplace().groups = 1;
  record.gap_probe->Add({recorded, recorded, recorded, recorded, clean});
  const json probe = json::parse(MetricsJson(record))["gap_probe"];
  EXPECT_EQ(probe["groups"], 1);
  EXPECT_EQ(probe["tokens"], 2);
  EXPECT_EQ(probe["precision_abs_max"], 0.0);
  EXPECT_EQ(probe["noise_mean"], -0.5);
  EXPECT_EQ(probe["whole_abs_mean"], 0.5);
  record.gap_probe = GapSplit();
  EXPECT_FALSE(json::parse(MetricsJson(record))["gap_probe"].contains("noise_mean"))
      << "no group could be probed: there is no mean";
}

TEST(MetricsRecordTest, EveryPerturbedRowHasItsNumbersByLayer) {
  StepRecord record;
  const auto count = [&](int layer, numerics::Operator op, numerics::TensorRole role) {
    numerics::ErrorStats stats = {.calls = 1, .elements = 10, .changed = 9};
    stats.sum_sq_error.Add(0.0123456);
    stats.sum_sq_value.Add(1.0);
    record.counters.Count({.layer = layer, .op = op, .role = role}, stats);
  };
  count(0, numerics::Operator::kQ, numerics::TensorRole::kOutput);
  count(2, numerics::Operator::kQ, numerics::TensorRole::kOutput);
  count(numerics::kNoLayer, numerics::Operator::kFinalNorm, numerics::TensorRole::kWeightNoise);
  record.counters.Count({.layer = 1, .op = numerics::Operator::kQ}, {});  // ran without error
  const json rows = json::parse(MetricsJson(record))["noise_rows"];
  EXPECT_EQ(rows["rollout forward"]["q"]["achieved_error_scale"],
            json::parse("[0.1111,null,0.1111]"));
  EXPECT_EQ(rows["rollout forward"]["q"]["elements_changed"], json::parse("[9,null,9]"));
  EXPECT_EQ(rows["rollout forward weight_noise"]["final_norm"]["achieved_sigma"], 0.03514);
  EXPECT_EQ(rows.size(), 2u);
}

TEST(MetricsRecordTest, WhatFormatsWouldMakeOfTheWeightsStandsWithACheckpointOnly) {
  StepRecord record;
  EXPECT_FALSE(json::parse(MetricsJson(record)).contains("quantization"));
  record.quantization = {{.format = "mxfp4", .sqnr_db_median = 18.5, .sqnr_db_least = 17.0}};
  const json line = json::parse(MetricsJson(record));
  EXPECT_EQ(line["quantization"]["mxfp4"]["sqnr_db_median"], 18.5);
  EXPECT_EQ(line["quantization"]["mxfp4"]["sqnr_db_least"], 17.0);
}

TEST(MetricsRecordTest, TheTwoGradientsOfAnOperatorAreToldApart) {
  StepRecord record;
  numerics::ErrorStats stats = {.calls = 1, .elements = 10, .changed = 10};
  stats.sum_sq_error.Add(0.01);
  stats.sum_sq_value.Add(1.0);
  record.counters.Count({.phase = numerics::Phase::kTrain,
                         .direction = numerics::Direction::kBackward,
                         .layer = 0,
                         .role = numerics::TensorRole::kGradWeight},
                        stats);
  const json line = json::parse(MetricsJson(record));
  const json& backward = line["injections"]["train"]["backward"];
  EXPECT_EQ(backward["elements"], 10);
  EXPECT_EQ(backward["grad_weight"]["elements"], 10);
  EXPECT_NEAR(backward["grad_weight"]["achieved_error_scale"].get<double>(), 0.1, 1e-9);
  EXPECT_EQ(backward["grad_input"]["elements"], 0);
}

TEST(SamplesFileTest, HoldsWhatAPersonDebugsWith) {
  testing::TempDir dir;
  const auto tokenizer = model::LoadTokenizer("tests/golden/tiny_qwen2");
  ASSERT_THAT(tokenizer, IsOk());
  ASSERT_THAT(WriteSamples(dir.path(), 6, BatchForTest(), **tokenizer), IsOk());
  const auto text = base::ReadFile(dir.File("samples/step_6.jsonl"), 1 << 20);
  ASSERT_THAT(text, IsOk());
  std::vector<json> lines;
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = text->find('\n', begin);
    lines.push_back(json::parse(text->substr(begin, end - begin)));
    begin = end + 1;
  }
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1]["group_index"], 5);
  EXPECT_EQ(lines[1]["ending"], "dropped_zero_variance");
  EXPECT_EQ(lines[0]["prompt"], "How many?");
  EXPECT_EQ(lines[0]["truth"], "7");
  EXPECT_EQ(lines[0]["completions"].size(), 2u);
  EXPECT_EQ(lines[0]["completions"][0]["reward"], 1.0);
  EXPECT_TRUE(lines[0]["completions"][0]["extracted"].is_null());
}

}  // namespace
}  // namespace temper::learner
