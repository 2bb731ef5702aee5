#include "scan/labels.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "numerics/statistics.h"
#include "services/base/status_macros.h"

namespace temper::scan {
namespace {

using Value = double StaticRow::*;

// Values of one role of all linears (layer < 0), or of one layer's.
std::vector<double> Values(const ScanResult& result, const std::string& error, Role role, int layer,
                           Value value) {
  std::vector<double> values;
  for (const StaticRow& row : result.static_rows) {
    if (row.error != error || row.role != role || (layer >= 0 && row.layer != layer)) continue;
    values.push_back(row.*value);
  }
  return values;
}

absl::StatusOr<std::vector<double>> SensitivityByLayer(const ScanResult& result) {
  if (result.sensitivity.empty()) {
    return absl::InvalidArgumentError(
        "labels by sensitivity need it measured: give --sensitivity too");
  }
  std::vector<double> values(static_cast<size_t>(result.num_layers));
  for (const LayerSensitivity& row : result.sensitivity) {
    values[static_cast<size_t>(row.layer)] += row.kl_nats;
  }
  return values;
}

absl::StatusOr<std::vector<double>> StaticByLayer(const ScanResult& result,
                                                  const LabelOptions& options) {
  const bool sqnr = options.by == "sqnr";
  const Value value = sqnr ? &StaticRow::sqnr_db : &StaticRow::dead_zone;
  const std::string& error = result.errors.front();
  std::vector<double> values;
  for (int layer = 0; layer < result.num_layers; ++layer) {
    std::vector<double> own = Values(result, error, Role::kLayerOutput, layer, value);
    if (own.empty()) own = Values(result, error, Role::kWeight, layer, value);
    if (own.empty()) return absl::InvalidArgumentError("labels need a static scan");
    double median = numerics::Median(own);
    const std::vector<double> inputs = Values(result, error, Role::kInput, layer, value);
    if (options.quantized_inputs && !inputs.empty()) {
      const double other = numerics::Median(inputs);
      median = sqnr ? std::min(median, other) : std::max(median, other);
    }
    values.push_back(median);
  }
  return values;
}

}  // namespace

absl::StatusOr<Labels> LabelLayers(const ScanResult& result, const LabelOptions& options) {
  const bool sensitivity = options.by == "sensitivity";
  if (!sensitivity && options.by != "sqnr" && options.by != "dead_zone") {
    return absl::InvalidArgumentError(
        absl::StrCat("labels by '", options.by, "': sensitivity, sqnr or dead_zone"));
  }
  TEMPER_ASSIGN_OR_RETURN(const std::vector<double> values, sensitivity
                                                                ? SensitivityByLayer(result)
                                                                : StaticByLayer(result, options));
  numerics::LabelRule rule = options.rule;
  rule.smaller_is_worse = options.by == "sqnr";
  TEMPER_ASSIGN_OR_RETURN(const std::vector<numerics::SensitivityLabel> labels,
                          numerics::LabelByQuantiles(values, rule));
  Labels result_labels = {.by = options.by,
                          .error = sensitivity ? result.sensitivity_error : result.errors.front(),
                          .layers = {}};
  for (size_t l = 0; l < values.size(); ++l) {
    result_labels.layers.push_back(
        {.layer = static_cast<int>(l),
         .value = values[l],
         .label = labels[l],
         .multiplier = numerics::Multiplier(labels[l], options.multipliers)});
  }
  return result_labels;
}

absl::StatusOr<std::vector<FormatAdvice>> AdviseOnFormats(const ScanResult& result,
                                                          numerics::TrainingMode training,
                                                          bool quantized_inputs) {
  std::vector<FormatAdvice> all;
  for (const std::string& error : result.errors) {
    const auto format = numerics::NumberFormatFromName(error);
    if (!format.has_value()) continue;
    const auto of = [&](Role role, Value value) { return Values(result, error, role, -1, value); };
    const std::vector<double> weight_db = of(Role::kWeight, &StaticRow::sqnr_db);
    const std::vector<double> weight_dead = of(Role::kWeight, &StaticRow::dead_zone);
    const std::vector<double> input_db = of(Role::kInput, &StaticRow::sqnr_db);
    const std::vector<double> input_dead = of(Role::kInput, &StaticRow::dead_zone);
    TEMPER_ASSIGN_OR_RETURN(
        numerics::AqnAdvice advice,
        numerics::AdviseAqn({.format = format,
                             .training = training,
                             .quantized_inputs = quantized_inputs,
                             .weights = {.sqnr_db = weight_db, .dead_zone = weight_dead},
                             .inputs = {.sqnr_db = input_db, .dead_zone = input_dead}}));
    all.push_back({.format = error,
                   .training = training,
                   .quantized_inputs = quantized_inputs,
                   .advice = std::move(advice)});
  }
  return all;
}

}  // namespace temper::scan
