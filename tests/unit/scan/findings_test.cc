// Labels, advice, the files and the page: what is made of measurements.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "scan/labels.h"
#include "scan/scan_json.h"
#include "scan/scan_page.h"
#include "services/base/files.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace temper::scan {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

StaticRow Row(Role role, int layer, double sqnr_db, double dead_zone = 0.08) {
  return {.error = "mxfp4",
          .role = role,
          .layer = layer,
          .op = numerics::Operator::kUp,
          .elements = 64,
          .sqnr_db = sqnr_db,
          .sqnr_db_without_largest = sqnr_db,
          .block_row_sqnr_db = std::vector<double>(std::size(kBlockRowQuantiles), sqnr_db),
          .dead_zone = dead_zone};
}

// Three layers whose weights stand at 19, 18 and 20 dB.
ScanResult SmallScan() {
  ScanResult result = {.model_path = "models/<tiny> & \"quoted\"",
                       .model_hash = "00112233445566ff",
                       .num_layers = 3,
                       .prompts = "gsm-arith",
                       .sequences_hash = "0123456789abcdef",
                       .sequences = 1,
                       .errors = {"mxfp4"}};
  const double weights[] = {19, 18, 20}, inputs[] = {17, 19, 16};
  for (int layer = 0; layer < 3; ++layer) {
    result.static_rows.push_back(Row(Role::kWeight, layer, weights[layer], 0.01 * (layer + 1)));
    result.static_rows.push_back(Row(Role::kInput, layer, inputs[layer]));
    result.profile.push_back({.rows = 4,
                              .input_gain = 1.0 + 1.0 / 3,
                              .projections = std::vector<double>(kProjections, 0.1 * layer)});
  }
  result.labels = LabelLayers(result, {}).value();
  result.advice = AdviseOnFormats(result, numerics::TrainingMode::kFull, false).value();
  return result;
}

std::vector<double> Multipliers(const Labels& labels) {
  std::vector<double> multipliers;
  for (const LayerLabel& layer : labels.layers) multipliers.push_back(layer.multiplier);
  return multipliers;
}

TEST(Labels, LessSqnrIsMoreSevere) {
  using ::testing::ElementsAre;
  const ScanResult scan = SmallScan();
  EXPECT_THAT(Multipliers(*scan.labels), ElementsAre(1.2, 1.5, 1.0));
  EXPECT_THAT(Multipliers(LabelLayers(scan, {.by = "dead_zone"}).value()),
              ElementsAre(1.0, 1.2, 1.5));
  // With quantized inputs the lower of the two counts: 17, 18, 16.
  EXPECT_THAT(Multipliers(LabelLayers(scan, {.quantized_inputs = true}).value()),
              ElementsAre(1.2, 1.0, 1.5));
}

TEST(Labels, BySensitivityAddUpALayersOperators) {
  using ::testing::ElementsAre;
  ScanResult scan = SmallScan();
  scan.sensitivity_error = "relative_gaussian:0.05";
  for (int layer = 0; layer < 3; ++layer) {
    for (const auto op : {numerics::Operator::kQ, numerics::Operator::kUp}) {
      scan.sensitivity.push_back({.layer = layer, .op = op, .kl_nats = layer == 1 ? 0.5 : 0.1});
    }
  }
  scan.sensitivity.back().kl_nats = 0.2;
  const Labels labels =
      LabelLayers(scan, {.by = "sensitivity", .multipliers = {.high = 2, .medium = 1, .low = 0}})
          .value();
  EXPECT_THAT(Multipliers(labels), ElementsAre(0, 2, 1));
  EXPECT_DOUBLE_EQ(labels.layers[1].value, 1.0);
  EXPECT_EQ(labels.error, "relative_gaussian:0.05");
}

TEST(Labels, NeedTheirMetric) {
  using enum absl::StatusCode;
  EXPECT_THAT(LabelLayers(SmallScan(), {.by = "sensitivity"}),
              StatusIs(kInvalidArgument, HasSubstr("--sensitivity")));
  EXPECT_THAT(LabelLayers(SmallScan(), {.by = "colour"}),
              StatusIs(kInvalidArgument, HasSubstr("colour")));
}

TEST(Advice, ReadsTheRolesThatTheRunQuantizes) {
  const ScanResult scan = SmallScan();
  ASSERT_EQ(scan.advice.size(), 1u);
  EXPECT_EQ(scan.advice[0].advice.priority, numerics::AqnPriority::kOptional);
  EXPECT_DOUBLE_EQ(scan.advice[0].advice.sqnr_db, 19);
  const auto w4a4 = AdviseOnFormats(scan, numerics::TrainingMode::kFull, true).value();
  EXPECT_DOUBLE_EQ(w4a4[0].advice.sqnr_db, 17);
  EXPECT_EQ(w4a4[0].advice.priority, numerics::AqnPriority::kCritical);
  const auto lora = AdviseOnFormats(scan, numerics::TrainingMode::kLora, false).value();
  EXPECT_EQ(lora[0].advice.priority, numerics::AqnPriority::kCritical);
  EXPECT_THAT(lora[0].advice.reason, HasSubstr("LoRA"));
}

class ScanFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    EXPECT_THAT(base::WriteFileAtomically(path_, text), IsOk());
    return path_;
  }
  // The file of SmallScan with one change.
  std::string Changed(const std::function<void(nlohmann::json*)>& change) {
    nlohmann::json json = nlohmann::json::parse(ToJson(SmallScan()));
    change(&json);
    return Write(json.dump());
  }

  testing::TempDir dir_;
  const std::string path_ = dir_.path() + "/scan.json";
};

TEST_F(ScanFileTest, ReadsBackWhatWasWritten) {
  const ScanResult scan = SmallScan();
  const ScanFile file = ReadScanFile(Write(ToJson(scan))).value();
  EXPECT_EQ(file.model_hash, scan.model_hash);
  EXPECT_EQ(file.sequences_hash, scan.sequences_hash);
  EXPECT_THAT(file.multipliers, ::testing::ElementsAre(1.2, 1.5, 1.0));
  ASSERT_EQ(file.profile.size(), 3u);
  EXPECT_EQ(file.profile[2].input_gain, scan.profile[2].input_gain);  // to the bit
  EXPECT_EQ(file.profile[2].projections, scan.profile[2].projections);
}

TEST_F(ScanFileTest, ACutFileIsDamagedWhereverItIsCut) {
  const std::string whole = ToJson(SmallScan());
  for (const size_t length : {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 3}) {
    EXPECT_THAT(ReadScanFile(Write(whole.substr(0, length))),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(path_)))
        << length;
  }
}

TEST_F(ScanFileTest, EveryMistakeIsNamed) {
  using Json = nlohmann::json;
  const auto expect = [&](const std::string& file, const char* what) {
    EXPECT_THAT(ReadScanFile(file), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(what)));
  };
  expect(Changed([](Json* json) { (*json)["format"] = "scan-9"; }), "scan-9");
  expect(Changed([](Json* json) { (*json)["model"] = 3; }), "hash");
  expect(Changed([](Json* json) { json->erase("labels"); }), "labels.layers");
  expect(Changed([](Json* json) { (*json)["labels"]["layers"][1]["layer"] = 7; }), "layer 7");
  expect(Changed([](Json* json) { (*json)["labels"]["layers"][1]["multiplier"] = -1; }), "below 0");
  expect(Changed([](Json* json) { (*json)["labels"]["layers"][1]["multiplier"] = "x"; }),
         "multiplier");
  expect(Changed([](Json* json) { (*json)["profile"][0].erase("crest"); }), "crest");
  expect(Changed([](Json* json) {
           (*json)["profile"][0]["projections"] = Json::array({1, 2});
         }),
         "projections");
  expect(Write("[1, 2]"), "not a JSON object");
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i) deep += '[';
  expect(Write(deep), "deep");
  EXPECT_THAT(ReadScanFile(dir_.path() + "/none.json"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none.json")));
}

TEST(ScanLines, AreOneObjectEachWithItsKind) {
  ScanResult scan = SmallScan();
  scan.static_rows[0].sqnr_db = std::numeric_limits<double>::quiet_NaN();  // is written as null
  std::map<std::string, int> kinds;
  for (const std::string& line : ToJsonLines(scan)) {
    const nlohmann::json json = nlohmann::json::parse(line);
    ++kinds[json["kind"].get<std::string>()];
  }
  EXPECT_EQ(kinds["scan"], 1);
  EXPECT_EQ(kinds["static"], 6);
  EXPECT_EQ(kinds["label"], 3);
  EXPECT_EQ(kinds["advice"], 1);
}

TEST(ScanPage, StandsAloneAndEscapesNames) {
  ScanResult scan = SmallScan();
  scan.sensitivity_error = "relative_gaussian:0.05";
  scan.sensitivity = {{.layer = 0, .op = {}, .kl_nats = 0.5}};
  scan.fault = FaultReport{.injected = "bias:0.1@1",
                           .references = {"healthy.json"},
                           .repeats = 2,
                           .kl_nats = 0.3,
                           .finding = {.evidence = Evidence::kDeparture,
                                       .ranking = {{.layer = 1, .z = 9, .value = 4, .field = "x"}},
                                       .symptom = "amplified"}};
  const std::string page = ToHtml(scan);
  EXPECT_THAT(page, HasSubstr("&lt;tiny&gt; &amp; &quot;quoted&quot;"));
  EXPECT_THAT(page, Not(HasSubstr("<tiny>")));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  for (const char* part : {"Advice on AQN", "Layers by sqnr", "multiplier", "Sensitivity", "Fault",
                           "amplified", "mxfp4, weights", "mxfp4, inputs", "from_scan"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
}

}  // namespace
}  // namespace temper::scan
