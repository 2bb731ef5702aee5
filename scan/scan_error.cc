#include "scan/scan_error.h"

#include <algorithm>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "numerics/formats/fake_quantize.h"
#include "services/base/check.h"
#include "services/base/status_macros.h"

namespace temper::scan {
namespace {

using numerics::FakeQuantizer;
using numerics::QuantizationStats;

constexpr int64_t kChunkRows = 64;  // stays in the second-level cache
// An error type has no grid: |x| / infinity is above no maximum.
constexpr float kNoScale = std::numeric_limits<float>::infinity();

FakeQuantizer QuantizerOf(const ScanError& error, numerics::Operand operand) {
  absl::StatusOr<FakeQuantizer> quantizer =
      FakeQuantizer::Create({.format = *error.format}, operand);
  TEMPER_CHECK(quantizer.ok(), "the format's own defaults exist for weights and activations");
  return *std::move(quantizer);
}

void AddPlainRows(const float* x, const float* q, int64_t rows, int64_t cols,
                  QuantizationStats* stats) {
  const auto width = static_cast<size_t>(cols);
  for (int64_t r = 0; r < rows; ++r) {
    stats->AddBlockRow({x + r * cols, width}, {q + r * cols, width}, kNoScale);
  }
}

}  // namespace

absl::StatusOr<ScanError> ParseScanError(const std::string& text) {
  ScanError result = {.name = text};
  result.format = numerics::NumberFormatFromName(text);
  if (result.format.has_value()) return result;
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  const auto type = numerics::ErrorTypeFromName(parts[0]);
  const bool spike = type == numerics::ErrorType::kSpike;
  double strength = 0.0, probability = 0.0;
  if (!type.has_value() || parts.size() != (spike ? 3u : 2u) ||
      !absl::SimpleAtod(parts[1], &strength) ||
      (spike && !absl::SimpleAtod(parts[2], &probability))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text,
        "' is no number format (mxfp4, nvfp4, fp8) and no error TYPE:STRENGTH, such as "
        "relative_gaussian:0.05 or spike:0.5:0.001"));
  }
  const absl::Status range = numerics::CheckStrength(*type, strength);
  if (!range.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "': ", range.message()));
  }
  if (strength == 0.0 || (spike && !(probability > 0.0 && probability <= 1.0))) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' does nothing, or has a probability that is none"));
  }
  result.error = {
      .type = *type, .strength = static_cast<float>(strength), .spike_probability = probability};
  return result;
}

QuantizationStats EmptyStats(const ScanError& error) {
  return QuantizationStats(error.format.has_value() ? numerics::ElementMax(*error.format) : 1.0f);
}

QuantizationStats ScanWeight(const ScanError& error, const WeightRows& weight,
                             std::vector<float>* scratch) {
  QuantizationStats stats = EmptyStats(error);
  const int64_t values = weight.out * weight.in;
  const int64_t step = std::max<int64_t>(1, values / kCountedValues);
  scratch->resize(static_cast<size_t>(2 * values));  // never more scales than values
  float* perturbed = scratch->data();
  float* scales = perturbed + values;
  if (!error.format.has_value()) {
    std::copy(weight.w, weight.w + values, perturbed);
    numerics::ApplyErrorToWeight(error.error, perturbed, weight.out, weight.in, weight.key,
                                 weight.site, nullptr);
    for (int64_t r = 0; r < weight.out; r += step) {
      AddPlainRows(weight.w + r * weight.in, perturbed + r * weight.in, 1, weight.in, &stats);
    }
    return stats;
  }
  const FakeQuantizer quantizer = QuantizerOf(error, numerics::Operand::kWeight);
  const int64_t shape[] = {weight.out, weight.in};
  const absl::Status status = quantizer.QuantizeWeight(shape, weight.w, perturbed, scales);
  TEMPER_CHECK(status.ok(), "a matrix can be quantized by blocks of a row");
  const int64_t per_row = quantizer.ScalesPerRow(weight.in);
  for (int64_t r = 0; r < weight.out; r += step) {
    stats.AddRows(quantizer, weight.w + r * weight.in, perturbed + r * weight.in,
                  scales + r * per_row, 1, weight.in);
  }
  return stats;
}

void RowScanner::Add(const float* x, int64_t rows, int64_t cols,
                     std::span<const numerics::RowKey> keys, uint32_t site,
                     QuantizationStats* stats) {
  perturbed_.resize(static_cast<size_t>(kChunkRows * cols));
  for (int64_t begin = 0; begin < rows; begin += kChunkRows) {
    const int64_t count = std::min(kChunkRows, rows - begin);
    const float* part = x + begin * cols;
    if (!error_.format.has_value()) {
      std::copy(part, part + count * cols, perturbed_.begin());
      numerics::ApplyError(error_.error, perturbed_.data(), count, cols, cols,
                           keys.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
                           site, nullptr);
      AddPlainRows(part, perturbed_.data(), count, cols, stats);
      continue;
    }
    const FakeQuantizer quantizer = QuantizerOf(error_, numerics::Operand::kActivation);
    scales_.resize(static_cast<size_t>(kChunkRows * quantizer.ScalesPerRow(cols)));
    quantizer.QuantizeRows({.x = part,
                            .out = perturbed_.data(),
                            .rows = count,
                            .cols = cols,
                            .x_stride = cols,
                            .out_stride = cols,
                            .scales = scales_.data()},
                           {}, site);
    stats->AddRows(quantizer, part, perturbed_.data(), scales_.data(), count, cols);
  }
}

}  // namespace temper::scan
