#include "learner/weight_quantization.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "numerics/aqn.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/formats/quantization_stats.h"
#include "services/base/status_macros.h"

namespace temper::learner {
namespace {

using numerics::NumberFormat;

constexpr NumberFormat kFormats[] = {NumberFormat::kMxfp4, NumberFormat::kNvfp4};

absl::StatusOr<QuantizedWeight> Quantize(const std::string& name, const model::TensorView& weight,
                                         NumberFormat format) {
  TEMPER_ASSIGN_OR_RETURN(
      const numerics::FakeQuantizer quantizer,
      numerics::FakeQuantizer::Create({.format = format}, numerics::Operand::kWeight));
  const int64_t rows = weight.shape.front();
  const int64_t cols = weight.shape.back();
  std::vector<float> quantized(weight.values.size());
  std::vector<float> scales(static_cast<size_t>(rows * quantizer.ScalesPerRow(cols)));
  TEMPER_RETURN_IF_ERROR(quantizer.QuantizeWeight(weight.shape, weight.values.data(),
                                                  quantized.data(), scales.data()));
  numerics::QuantizationStats stats(numerics::ElementMax(format));
  stats.AddRows(quantizer, weight.values.data(), quantized.data(), scales.data(), rows, cols);
  return QuantizedWeight{.name = name,
                         .format = std::string(numerics::NumberFormatName(format)),
                         .sqnr_db = stats.sqnr_db(),
                         .dead_zone = stats.dead_zone()};
}

// The lower of two middle values.
double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

absl::StatusOr<std::vector<QuantizedWeight>> QuantizeWeights(const model::TensorViewMap& weights,
                                                             int num_layers) {
  std::vector<QuantizedWeight> quantized;
  for (const numerics::AqnTarget& linear : numerics::AqnLinears({.num_layers = num_layers})) {
    const std::string name = numerics::OperatorPath(linear.op, linear.layer) + ".weight";
    const auto weight = weights.find(name);
    if (weight == weights.end()) {
      return absl::InvalidArgumentError(absl::StrCat("the policy has no weight ", name));
    }
    for (const NumberFormat format : kFormats) {
      TEMPER_ASSIGN_OR_RETURN(quantized.emplace_back(), Quantize(name, weight->second, format));
    }
  }
  return quantized;
}

std::vector<QuantizationSummary> Summarize(const std::vector<QuantizedWeight>& weights) {
  std::vector<QuantizationSummary> summaries;
  for (const NumberFormat format : kFormats) {
    const std::string name(numerics::NumberFormatName(format));
    std::vector<double> sqnr, dead;
    for (const QuantizedWeight& weight : weights) {
      if (weight.format != name) continue;
      sqnr.push_back(weight.sqnr_db);
      dead.push_back(weight.dead_zone);
    }
    if (sqnr.empty()) continue;
    summaries.push_back({.format = name,
                         .sqnr_db_median = Median(sqnr),
                         .sqnr_db_least = *std::min_element(sqnr.begin(), sqnr.end()),
                         .dead_zone_median = Median(dead),
                         .dead_zone_most = *std::max_element(dead.begin(), dead.end())});
  }
  return summaries;
}

std::string QuantizationJson(const std::vector<QuantizedWeight>& weights) {
  nlohmann::ordered_json formats = nlohmann::ordered_json::object();
  for (const QuantizedWeight& weight : weights) {
    formats[weight.format][weight.name] = {{"sqnr_db", weight.sqnr_db},
                                           {"dead_zone", weight.dead_zone}};
  }
  return formats.dump(1) + "\n";
}

}  // namespace temper::learner
