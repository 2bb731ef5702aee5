#include "cli/scan_multipliers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "model/parameters.h"
#include "scan/scan_json.h"
#include "services/base/files.h"
#include "services/base/hash.h"
#include "services/config/noise_plan.h"
#include "services/config/run_config.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::cli {
namespace {

using ::temper::testing::IsOk;
using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kModel[] = "tests/golden/tiny_qwen2";  // two layers

class ScanMultipliersTest : public ::testing::Test {
 protected:
  // A scan of two layers that says it is of the model with this hash.
  void WriteScan(const std::string& model_hash, int layers = 2) {
    scan::ScanResult scan = {.model_hash = model_hash, .num_layers = layers, .errors = {"mxfp4"}};
    scan.labels = scan::Labels{.by = "sqnr", .error = "mxfp4", .layers = {}};
    for (int layer = 0; layer < layers; ++layer) {
      scan.labels->layers.push_back({.layer = layer, .multiplier = 1.5 - 0.5 * layer});
      scan.profile.push_back({.projections = std::vector<double>(scan::kProjections)});
    }
    ASSERT_THAT(base::WriteFileAtomically(dir_.File("scan.json"), scan::ToJson(scan)), IsOk());
  }
  absl::StatusOr<v1::RunConfig> Load(const std::string& more = "") {
    const std::string recipe = dir_.File("recipe.yaml");
    EXPECT_THAT(base::WriteFileAtomically(
                    recipe,
                    "dataset: {name: gsm-arith}\ntrainer:\n  total_updates: 4\n  noise_injection:\n"
                    "    enabled: true\n    sigma_start: 0.05\n    sigma_end: 0.0005\n"
                    "    layer_sigma_config: {enabled: true, preset: from_scan, "
                    "scan_file: scan.json" +
                        more + "}\n"),
                IsOk());
    absl::StatusOr<v1::RunConfig> config = config::LoadRunConfig(recipe);
    if (config.ok()) {
      config->mutable_model()->set_path(std::filesystem::absolute(kModel).string());
    }
    return config;
  }
  static std::string ModelHash() {
    return base::HexDigest(model::ModelReader::Open(kModel).value()->HashWeights().value());
  }

  testing::TempDir dir_;
};

TEST_F(ScanMultipliersTest, TheHashOfTheFilesIsThatOfTheModelInMemory) {
  const auto parameters = model::ParametersFromModel(model::LoadModel(kModel).value()).value();
  EXPECT_EQ(ModelHash(), base::HexDigest(model::HashParameters(parameters)));
}

TEST_F(ScanMultipliersTest, AreThoseOfTheScan) {
  WriteScan(ModelHash());
  v1::RunConfig config = Load().value();
  // A process without the file refuses to go on without its multipliers.
  EXPECT_THAT(config::AqnPlanFromConfig(config, {.num_layers = 2}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("were not read")));
  ASSERT_THAT(ResolveScanMultipliers(false, &config), IsOk());
  const numerics::AqnPlan plan = config::AqnPlanFromConfig(config, {.num_layers = 2}).value();
  EXPECT_EQ(numerics::LayerMultiplier(plan, 0, 2, 0), 1.5);
  EXPECT_EQ(numerics::LayerMultiplier(plan, 1, 2, 0), 1.0);
  // What the run directory keeps is read back without the scan.
  const std::string resolved = dir_.File("resolved.yaml");
  ASSERT_THAT(base::WriteFileAtomically(resolved, config::ToYaml(config)), IsOk());
  ASSERT_THAT(base::RemoveAll(dir_.File("scan.json")), IsOk());
  v1::RunConfig again = config::LoadResolvedConfig(resolved).value();
  ASSERT_THAT(ResolveScanMultipliers(true, &again), IsOk());
  EXPECT_TRUE(config::ResumeDifferences(config, again).empty());
}

TEST_F(ScanMultipliersTest, ScansThatDoNotFitAreRefused) {
  using enum absl::StatusCode;
  v1::RunConfig config = Load().value();
  EXPECT_THAT(ResolveScanMultipliers(false, &config),
              StatusIs(kInvalidArgument, HasSubstr("scan.json")));
  WriteScan("0123456789abcdef");
  EXPECT_THAT(ResolveScanMultipliers(false, &config),
              StatusIs(kInvalidArgument, HasSubstr("a scan file of another model")));
  WriteScan(ModelHash(), 3);
  EXPECT_THAT(ResolveScanMultipliers(false, &config),
              StatusIs(kInvalidArgument, HasSubstr("3 layers, the model has 2")));
  EXPECT_TRUE(config.trainer().noise_injection().layer_sigma_config().layer_multipliers().empty());
  v1::RunConfig both = Load(", layer_multipliers: {0: 2}").value();
  EXPECT_THAT(ResolveScanMultipliers(false, &both),
              StatusIs(kInvalidArgument, HasSubstr("give one of the two")));
}

TEST_F(ScanMultipliersTest, ADefaultOfZeroIsJudgedOnceTheScanWasRead) {
  WriteScan(ModelHash());
  v1::RunConfig config = Load(", default_multiplier: 0").value();
  ASSERT_THAT(ResolveScanMultipliers(false, &config), IsOk());
  const numerics::AqnPlan plan = config::AqnPlanFromConfig(config, {.num_layers = 2}).value();
  EXPECT_EQ(numerics::LayerMultiplier(plan, numerics::kNoLayer, 2, 0), 0.0);
  EXPECT_EQ(numerics::LayerMultiplier(plan, 0, 2, 0), 1.5);
}

TEST_F(ScanMultipliersTest, PresetAndFileComeTogether) {
  const std::string recipe = dir_.File("half.yaml");
  ASSERT_THAT(base::WriteFileAtomically(
                  recipe,
                  "dataset: {name: gsm-arith}\ntrainer:\n  total_updates: 4\n  noise_injection:\n"
                  "    {enabled: true, sigma_start: 0.05, sigma_end: 0.0005,\n"
                  "     layer_sigma_config: {enabled: true, preset: from_scan}}\n"),
              IsOk());
  EXPECT_THAT(config::LoadRunConfig(recipe),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("come together")));
}

}  // namespace
}  // namespace temper::cli
