#include "numerics/aqn_draw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "numerics/gaussian.h"
#include "services/base/random_key.h"

namespace temper::numerics {
namespace {

using testing::HasSubstr;

AqnPlan Plan(AqnSchedule schedule) {
  AqnPlan plan;
  plan.enabled = true;
  plan.schedule = schedule;
  plan.sigma_start = 0.05;
  plan.sigma_end = 0.0005;
  plan.num_stages = 10;
  plan.stages_per_epoch = 5;
  plan.total_steps = 116;
  plan.epochs = 2;
  plan.steps_per_epoch = 58;
  return plan;
}

TEST(AqnSchedule, GlobalHasTheTenCheckedStages) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  plan.total_steps = 10;
  const double expected[] = {0,     0.05,    0.02812, 0.01581, 0.00889,
                             0.005, 0.00281, 0.00158, 0.00089, 0.0005};
  for (int t = 0; t < 10; ++t) EXPECT_NEAR(Sigma(plan, t), expected[t], 6e-6) << t;
  EXPECT_EQ(Sigma(plan, 1), 0.05);
  EXPECT_EQ(Sigma(plan, 9), 0.0005);
}

TEST(AqnSchedule, GlobalChangesStageByIntegerDivision) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);  // T = 116, K = 10: stage i starts at ceil(11.6 i)
  EXPECT_EQ(Sigma(plan, 11), 0.0);
  EXPECT_EQ(Sigma(plan, 12), 0.05);
  EXPECT_EQ(Sigma(plan, 23), 0.05);
  EXPECT_LT(Sigma(plan, 24), 0.05);
  EXPECT_EQ(Sigma(plan, 115), 0.0005);
}

TEST(AqnSchedule, TimesOutsideTheRunAreTakenAsItsEnds) {
  const AqnPlan plan = Plan(AqnSchedule::kGlobal);
  EXPECT_EQ(Sigma(plan, 116), Sigma(plan, 115));
  EXPECT_EQ(Sigma(plan, 1 << 30), Sigma(plan, 115));
  EXPECT_EQ(Sigma(plan, -1), Sigma(plan, 0));
}

TEST(AqnSchedule, GlobalWithOneOrTwoStagesIsConstantOrAStep) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  plan.num_stages = 1;
  EXPECT_EQ(Sigma(plan, 0), 0.05);
  EXPECT_EQ(Sigma(plan, 115), 0.05);
  plan.num_stages = 2;
  EXPECT_EQ(Sigma(plan, 57), 0.0);
  EXPECT_EQ(Sigma(plan, 58), 0.05);
  EXPECT_EQ(Sigma(plan, 115), 0.05);
}

TEST(AqnSchedule, EpochAwareHasTheCheckedBlocks) {
  const AqnPlan plan = Plan(AqnSchedule::kEpochAware);
  const struct {
    int first, last;
    double sigma;
  } blocks[] = {{0, 9, 0},          {10, 19, 0.05},     {20, 28, 0.0281},   {29, 38, 0.0158},
                {39, 48, 0.0089},   {49, 57, 0.005},    {58, 67, 0},        {68, 77, 0.005},
                {78, 86, 0.002812}, {87, 96, 0.001581}, {97, 106, 0.00089}, {107, 115, 0.0005}};
  for (const auto& block : blocks) {
    for (int t = block.first; t <= block.last; ++t) {
      EXPECT_NEAR(Sigma(plan, t), block.sigma, 5e-5) << t;
    }
  }
}

TEST(AqnSchedule, EpochAwareIsTheGlobalSequenceOfFewerStages) {
  // Its non-zero values are those of `global` with K = E (S - 1) + 2.
  const AqnPlan epoch = Plan(AqnSchedule::kEpochAware);
  AqnPlan global = Plan(AqnSchedule::kGlobal);
  global.num_stages = 2 * (5 - 1) + 2;
  global.total_steps = global.num_stages;
  for (int t = 0; t < 116; ++t) {
    const double sigma = Sigma(epoch, t);
    bool found = sigma == 0.0;
    for (int i = 1; i < global.num_stages; ++i) {
      found = found || std::abs(Sigma(global, i) - sigma) < 1e-12;
    }
    EXPECT_TRUE(found) << t << " " << sigma;
  }
}

TEST(AqnSchedule, EpochAwareWithOneStageIsTheEpochsStart) {
  AqnPlan plan = Plan(AqnSchedule::kEpochAware);
  plan.stages_per_epoch = 1;
  EXPECT_EQ(Sigma(plan, 28), 0.0);
  EXPECT_EQ(Sigma(plan, 29), 0.05);
  EXPECT_NEAR(Sigma(plan, 58 + 29), 0.005, 1e-15);
}

TEST(AqnSchedule, EpochRestartRepeatsTheWholeDecay) {
  const AqnPlan plan = Plan(AqnSchedule::kEpochRestart);
  for (int t = 0; t < 58; ++t) EXPECT_EQ(Sigma(plan, t), Sigma(plan, t + 58)) << t;
  EXPECT_EQ(Sigma(plan, 0), 0.0);
  EXPECT_EQ(Sigma(plan, 10), 0.05);
  EXPECT_EQ(Sigma(plan, 57), 0.0005);
}

TEST(AqnSchedule, ConstantNoneAndDisabledAreWhatTheySay) {
  EXPECT_EQ(Sigma(Plan(AqnSchedule::kConstant), 0), 0.05);
  EXPECT_EQ(Sigma(Plan(AqnSchedule::kNone), 50), 0.0);
  AqnPlan plan = Plan(AqnSchedule::kConstant);
  plan.enabled = false;
  EXPECT_EQ(Sigma(plan, 50), 0.0);
}

TEST(AqnSchedule, ARunWithoutUpdatesHasASigmaToo) {
  for (const AqnSchedule schedule :
       {AqnSchedule::kGlobal, AqnSchedule::kEpochAware, AqnSchedule::kEpochRestart}) {
    AqnPlan plan = Plan(schedule);
    plan.total_steps = 0;
    plan.steps_per_epoch = 0;
    EXPECT_EQ(Sigma(plan, 0), 0.0);
  }
}

TEST(LayerMultiplier, UsesTheMapAndTheDefault) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  plan.layers.layer_multipliers = {{14, 1.5}, {10, 1.2}};
  EXPECT_EQ(LayerMultiplier(plan, 14, 28, 0), 1.0);  // not enabled
  plan.layers.enabled = true;
  plan.layers.default_multiplier = 0.5;
  EXPECT_EQ(LayerMultiplier(plan, 14, 28, 0), 1.5);
  EXPECT_EQ(LayerMultiplier(plan, 10, 28, 0), 1.2);
  EXPECT_EQ(LayerMultiplier(plan, 11, 28, 0), 0.5);
  EXPECT_EQ(LayerMultiplier(plan, kNoLayer, 28, 0), 0.5);
}

TEST(LayerMultiplier, PresetsSelectTheLayersOfTheFindings) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  plan.layers.enabled = true;
  for (int layer = 0; layer < 28; ++layer) {
    const bool middle = layer >= 14 && layer <= 17;
    const bool near = (layer >= 10 && layer <= 13) || (layer >= 18 && layer <= 21);
    plan.layers.preset = LayerPreset::kTargeted;
    EXPECT_EQ(LayerMultiplier(plan, layer, 28, 0), middle ? 1.0 : 0.0) << layer;
    plan.layers.preset = LayerPreset::kVariable;
    EXPECT_EQ(LayerMultiplier(plan, layer, 28, 0), middle ? 1.5 : near ? 1.2 : 1.0) << layer;
    plan.layers.preset = LayerPreset::kZone;
    const bool zone = layer >= 6 && layer <= 22;
    EXPECT_EQ(LayerMultiplier(plan, layer, 28, 57), 1.0) << layer;
    EXPECT_EQ(LayerMultiplier(plan, layer, 28, 58), zone ? 0.5 : 1.0) << layer;
    plan.layers.preset = LayerPreset::kDepthHeuristic;
    EXPECT_EQ(LayerMultiplier(plan, layer, 28, 0), layer >= 11 && layer <= 16 ? 1.0 : 0.0) << layer;
  }
}

TEST(LayerMultiplier, PresetsScaleToOtherDepths) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  plan.layers.enabled = true;
  plan.layers.preset = LayerPreset::kTargeted;
  EXPECT_EQ(LayerMultiplier(plan, 1, 3, 0), 1.0);  // floor(28 * 3 / 6) = 14
  EXPECT_EQ(LayerMultiplier(plan, 0, 3, 0), 0.0);
  EXPECT_EQ(LayerMultiplier(plan, 2, 3, 0), 0.0);
}

TEST(ValidateAqn, ListsAllMistakesAtOnce) {
  AqnPlan plan = Plan(AqnSchedule::kEpochAware);
  plan.sigma_start = -1;
  plan.sigma_end = 0;
  plan.steps_per_epoch = 0;
  plan.layers = {.enabled = true, .layer_multipliers = {{30, 1.0}}};
  const absl::Status status = ValidateAqn(plan, {.num_layers = 28});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : {"sigma_start", "sigma_end", "steps_per_epoch", "layer 30"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(ValidateAqn, RefusesWhatWouldDoNothing) {
  AqnPlan plan = Plan(AqnSchedule::kGlobal);
  EXPECT_TRUE(ValidateAqn(plan, {.num_layers = 28}).ok());
  plan.total_steps = 1;  // the only step is the warm-up stage
  EXPECT_FALSE(ValidateAqn(plan, {.num_layers = 28}).ok());
  EXPECT_TRUE(ValidateAqn(plan, {.num_layers = 28}, /*null_arm=*/true).ok());
  plan = Plan(AqnSchedule::kGlobal);
  plan.layers = {.enabled = true, .preset = LayerPreset::kTargeted};
  EXPECT_TRUE(ValidateAqn(plan, {.num_layers = 3}).ok());
  EXPECT_FALSE(
      ValidateAqn(plan, {.num_layers = 2}).ok());  // stands for layers 7 and 21: none of 14-17
  plan.layers = {.enabled = true, .default_multiplier = 0.0};
  EXPECT_FALSE(ValidateAqn(plan, {.num_layers = 28}).ok());
  plan = Plan(AqnSchedule::kGlobal);
  plan.sigma_start = 0.0;
  EXPECT_FALSE(ValidateAqn(plan, {.num_layers = 28}).ok());
}

TEST(ApplyAqn, AddsTheKeyedNoiseAndKeepsTheCleanWeight) {
  std::vector<float> gamma(96, 1.5f), perturbed(96);
  const std::vector<float> clean = gamma;
  const AqnDraw draw = {.key = base::AqnKey(7, 3), .sigma = 0.05};
  const AqnTarget norm = {2, Operator::kPostAttentionNorm};
  AqnReport report;
  ApplyAqn(gamma, perturbed, norm, draw, 0.5, &report);
  EXPECT_EQ(gamma, clean);
  std::vector<float> normals(96);
  FillGaussian(normals.data(), 96, draw.key, AqnSite(norm));
  for (size_t c = 0; c < 96; ++c) {
    EXPECT_EQ(perturbed[c], std::fma(0.025f, normals[c], 1.5f));
  }
  EXPECT_EQ(report.norms_touched, 1);
  EXPECT_EQ(report.sigma, 0.05);
  EXPECT_GT(report.max_abs_change, 0.025);
  EXPECT_LT(report.max_abs_change, 0.025 * 6);
}

TEST(ApplyAqn, RelativeModeScalesWithTheWeight) {
  std::vector<float> gamma(64, -0.04f), absolute(64), relative(64);
  ApplyAqn(gamma, absolute, {}, {.key = 1, .sigma = 0.05 * 0.04}, 1.0, nullptr);
  ApplyAqn(gamma, relative, {}, {.key = 1, .sigma = 0.05, .mode = SigmaMode::kRelativeToRms}, 1.0,
           nullptr);
  for (size_t c = 0; c < 64; ++c) EXPECT_NEAR(relative[c], absolute[c], 1e-8);
}

TEST(ApplyAqn, ChecksumNamesTheBytesInAnyOrderOfNorms) {
  const std::vector<AqnTarget> norms = AqnNorms({.num_layers = 3});
  ASSERT_EQ(norms.size(), 7u);
  std::vector<float> gamma(32, 1.0f), perturbed(32);
  auto report_of = [&](double sigma, uint64_t key, bool reversed) {
    AqnReport report;
    for (size_t i = 0; i < norms.size(); ++i) {
      const AqnTarget& norm = norms[reversed ? norms.size() - 1 - i : i];
      ApplyAqn(gamma, perturbed, norm, {.key = key, .sigma = sigma}, 1.0, &report);
    }
    return report;
  };
  EXPECT_EQ(report_of(0.05, 1, false), report_of(0.05, 1, true));
  EXPECT_NE(report_of(0.05, 1, false).checksum, report_of(0.05, 2, false).checksum);
  EXPECT_EQ(report_of(0.05, 1, false).norms_touched, 7);
  EXPECT_EQ(report_of(0.0, 1, false).norms_touched, 0);
  EXPECT_EQ(report_of(0.0, 1, false).max_abs_change, 0.0);
}

TEST(AqnNorms, HaveDistinctNamesAndSites) {
  std::set<std::string> names;
  std::set<uint32_t> sites;
  for (const AqnTarget& norm : AqnNorms({.num_layers = 30})) {
    names.insert(AqnTargetName(norm));
    sites.insert(AqnSite(norm));
  }
  EXPECT_EQ(names.size(), 61u);
  EXPECT_EQ(sites.size(), 61u);
  EXPECT_EQ(AqnTargetName({3, Operator::kInputNorm}), "layers.3.input_norm");
  EXPECT_EQ(AqnTargetName({}), "final_norm");
}

TEST(AqnFingerprint, ChangesWithEveryFieldThatActs) {
  const AqnPlan plan = Plan(AqnSchedule::kGlobal);
  AqnPlan other = plan;
  other.sigma_end = 0.0004;
  EXPECT_NE(Fingerprint(plan), Fingerprint(other));
  other = plan;
  other.layers = {.enabled = true, .layer_multipliers = {{1, 2.0}}};
  EXPECT_NE(Fingerprint(plan), Fingerprint(other));
  AqnPlan off = plan;
  off.enabled = false;
  EXPECT_EQ(Fingerprint(off), Fingerprint(AqnPlan{}));
}

TEST(LayerMultiplierTest, AFinalNormThatIsLeftOutHasNoNoise) {
  AqnPlan plan;
  plan.enabled = true;
  EXPECT_EQ(LayerMultiplier(plan, kNoLayer, 4, 0), 1.0);
  plan.final_norm = false;
  EXPECT_EQ(LayerMultiplier(plan, kNoLayer, 4, 0), 0.0);
  EXPECT_EQ(LayerMultiplier(plan, 0, 4, 0), 1.0);
}

}  // namespace
}  // namespace temper::numerics
