#include "cli/quantize_model.h"

#include <algorithm>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/model_output.h"
#include "model/io/loader.h"
#include "model/io/model_reader.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/formats/quantization_stats.h"
#include "numerics/noise_policy.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

using model::ModelReader;
using model::StoredTensor;
using model::TensorData;
using numerics::FakeQuantizer;

// Names of the weights that the patterns select, by the table that selects operators for noise.
absl::StatusOr<std::set<std::string>> SelectedWeights(const QuantizeOptions& options,
                                                      const ModelReader& reader) {
  const numerics::ModelShape shape{.num_layers = static_cast<int>(reader.config().num_layers)};
  TEMPER_ASSIGN_OR_RETURN(const numerics::NoisePolicy policy,
                          numerics::NoisePolicy::Create({.enabled = true,
                                                         .error_scale = 1.0,
                                                         .target_modules = options.targets,
                                                         .exclude_modules = options.excludes},
                                                        shape));
  std::set<std::string> stored, selected;
  for (const StoredTensor& tensor : reader.tensors()) stored.insert(tensor.name);
  for (int o = 0; o < numerics::kOperatorCount; ++o) {
    const auto op = static_cast<numerics::Operator>(o);
    for (int layer = numerics::kNoLayer; layer < shape.num_layers; ++layer) {
      if (policy.Scale(numerics::Phase::kRollout, numerics::Direction::kForward, op, layer) == 0.0)
        continue;
      const std::string module = numerics::OperatorPath(op, layer);
      std::string name = absl::StrCat(module, ".weight");
      if (!numerics::IsLinear(op) || !stored.contains(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat(module, op == numerics::Operator::kLmHead
                                     ? " is tied to the embedding, which is not quantized"
                                     : " has no weight to quantize"));
      }
      selected.insert(std::move(name));
    }
  }
  return selected;
}

// Quantizes `tensor` in place, as its storage type keeps it, and says what that did.
absl::StatusOr<QuantizedTensor> QuantizeTensor(const FakeQuantizer& quantizer,
                                               const StoredTensor& stored, TensorData& tensor) {
  const int64_t cols = tensor.shape.back();
  const int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  std::vector<float> quantized(tensor.values.size());
  std::vector<float> scales(static_cast<size_t>(rows * quantizer.ScalesPerRow(cols)));
  TEMPER_RETURN_IF_ERROR(quantizer.QuantizeWeight(tensor.shape, tensor.values.data(),
                                                  quantized.data(), scales.data()));
  QuantizedTensor result = {.name = stored.name, .storage = stored.storage};
  // Chunks, so that the unrounded values of the whole tensor are not kept beside the others.
  std::vector<float> unrounded;
  constexpr size_t kChunk = size_t{1} << 20;
  for (size_t begin = 0; begin < quantized.size(); begin += kChunk) {
    const std::span<float> chunk =
        std::span(quantized).subspan(begin, std::min(kChunk, quantized.size() - begin));
    unrounded.assign(chunk.begin(), chunk.end());
    model::RoundToStorage(stored.storage, chunk);
    for (size_t i = 0; i < chunk.size(); ++i) {
      result.rounded += chunk[i] < unrounded[i] || chunk[i] > unrounded[i] ? 1 : 0;
    }
  }
  numerics::QuantizationStats stats(numerics::ElementMax(quantizer.spec().format));
  stats.AddRows(quantizer, tensor.values.data(), quantized.data(), scales.data(), rows, cols);
  result.elements = stats.elements();
  result.non_finite = stats.non_finite();
  result.sqnr_db = stats.sqnr_db();
  result.sqnr_db_without_largest = stats.SqnrDbWithoutLargest();
  result.block_row_sqnr_db = stats.BlockRowSqnrDb(0.5);
  result.dead_zone = stats.dead_zone();
  result.relative_error = stats.relative_error();
  result.saturation = stats.saturation();
  tensor.values = std::move(quantized);
  return result;
}

}  // namespace

absl::Status QuantizeModel(const QuantizeOptions& options,
                           absl::FunctionRef<void(const QuantizedTensor&)> report) {
  TEMPER_ASSIGN_OR_RETURN(const FakeQuantizer quantizer,
                          FakeQuantizer::Create(options.format, numerics::Operand::kWeight));
  TEMPER_ASSIGN_OR_RETURN(const auto reader, ModelReader::Open(options.model));
  TEMPER_ASSIGN_OR_RETURN(const std::set<std::string> selected, SelectedWeights(options, *reader));
  return WriteChangedModel(*reader, options.model, options.out,
                           [&](const StoredTensor& stored, TensorData& tensor) -> absl::Status {
                             if (!selected.contains(stored.name)) return absl::OkStatus();
                             TEMPER_ASSIGN_OR_RETURN(const QuantizedTensor result,
                                                     QuantizeTensor(quantizer, stored, tensor));
                             report(result);
                             return absl::OkStatus();
                           });
}

}  // namespace temper::cli
