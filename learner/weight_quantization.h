#pragma once

// What number formats would make of the weights that are trained: SQNR and dead zone of every
// decoder linear, so that one sees whether training changes them. Nothing is quantized by it. Pure.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/tensor_data.h"

namespace temper::learner {

// One weight under one format.
struct QuantizedWeight {
  std::string name;    // Hugging Face name
  std::string format;  // mxfp4 (blocks of 32 along a row), nvfp4 (of 16, scale of the whole weight)
  double sqnr_db = 0.0;
  double dead_zone = 0.0;  // share of the weights that become 0
};

// Over the weights of one format.
struct QuantizationSummary {
  std::string format;
  double sqnr_db_median = 0.0;
  double sqnr_db_least = 0.0;
  double dead_zone_median = 0.0;
  double dead_zone_most = 0.0;
};

// Both formats for every decoder linear of a model of num_layers, in the order of its layers. One
// thread, some 10 ns a weight and format. Errors: InvalidArgument if a weight is missing.
absl::StatusOr<std::vector<QuantizedWeight>> QuantizeWeights(const model::TensorViewMap& weights,
                                                             int num_layers);

// One per format. Medians are those of the lower of two middle values.
std::vector<QuantizationSummary> Summarize(const std::vector<QuantizedWeight>& weights);

// A JSON object: format -> weight -> {sqnr_db, dead_zone}.
std::string QuantizationJson(const std::vector<QuantizedWeight>& weights);

}  // namespace temper::learner
