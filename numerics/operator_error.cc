#include "numerics/operator_error.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_format.h"
#include "numerics/gaussian.h"
#include "numerics/gaussian_counter.h"
#include "numerics/kernels/error_kernels.h"
#include "services/base/check.h"

namespace temper::numerics {
namespace {

constexpr std::array<std::string_view, kErrorTypeCount> kNames = {"relative_gaussian",
                                                                  "absolute_gaussian",
                                                                  "systematic_bias",
                                                                  "truncation",
                                                                  "deadzone",
                                                                  "saturation",
                                                                  "spike"};

// Elements perturbed at a time; their sums are rounded to an ExactSum per block, so that they do
// not depend on what else was perturbed.
constexpr int64_t kBlockElements = 1024;
constexpr int64_t kMaxElements = int64_t{1} << 34;
// The bit of a site's tensor number that names the word of a spike.
constexpr uint32_t kStrikeBit = 8;

struct Kernels {
  kernels::GaussianFn gaussian;
  kernels::ErrorFn error;
  kernels::ReplaceFn replace;
  kernels::LargestFn largest;
};

Kernels Select(SimdPath path) {
  switch (path) {
    case SimdPath::kAvx512:
      return {kernels::GaussianAvx512, kernels::ErrorAvx512, kernels::ReplaceAvx512,
              kernels::LargestAvx512};
    case SimdPath::kAvx2:
      return {kernels::GaussianAvx2, kernels::ErrorAvx2, kernels::ReplaceAvx2,
              kernels::LargestAvx2};
    case SimdPath::kScalar:
      break;
  }
  return {kernels::GaussianScalar, kernels::ErrorScalar, kernels::ReplaceScalar,
          kernels::LargestScalar};
}

bool ReadsRowMaximum(ErrorType type) {
  return type == ErrorType::kDeadzone || type == ErrorType::kSaturation ||
         type == ErrorType::kSpike;
}

// Perturbs blocks of a tensor whose elements are numbered on from a multiple of the block.
class Perturbation {
 public:
  Perturbation(const OperatorError& error, uint32_t site, ErrorStats* stats, SimdPath path)
      : error_(error), site_(site), stats_(stats), kernels_(Select(path)) {
    if (error.type == ErrorType::kSpike) {
      const double words = std::round(error.spike_probability * 0x1p32);
      last_struck_ = static_cast<uint32_t>(std::clamp(words, 1.0, 0x1p32) - 1.0);
    }
  }

  // What the error of this type is measured by in a row: ErrorArguments::size.
  float SizeOf(const float* row, int64_t count) const {
    const float strength = error_.strength;
    const float largest = ReadsRowMaximum(error_.type) ? kernels_.largest(row, count) : 0.0f;
    switch (error_.type) {
      case ErrorType::kSystematicBias:
        return error_.relative ? 1.0f + strength : strength;
      case ErrorType::kDeadzone:
      case ErrorType::kSpike:
        return strength * largest;
      case ErrorType::kSaturation:
        return (1.0f - strength) * largest;
      default:
        return strength;
    }
  }

  // Draws for elements first .. first + count - 1; count <= kBlockElements.
  void BeginBlock(const RowKey& key, int64_t first, int64_t count) {
    const bool strikes = error_.type == ErrorType::kSpike;
    kernels::GaussianArguments draw = {.out = normals_,
                                       .rows = 1,
                                       .count = count,
                                       .row = &key,
                                       .first_counter = CounterOf(first, error_.draw),
                                       .site = site_,
                                       .numbers = NumbersOf(error_.draw)};
    if (strikes || error_.type == ErrorType::kAbsoluteGaussian) kernels_.gaussian(draw);
    if (!strikes) return;
    draw.out = words_;
    draw.first_counter = CounterOf(first, GaussianDraw::kExact);  // words are four a counter
    draw.site = site_ | kStrikeBit;
    draw.numbers = kernels::Numbers::kWords;
    kernels_.gaussian(draw);
  }

  // Elements begin .. end - 1 of the block belong to one row of this size.
  void PerturbPiece(const float* block, int64_t begin, int64_t end, float size) {
    kernels_.error({.type = error_.type,
                    .x = block + begin,
                    .out = after_ + begin,
                    .count = end - begin,
                    .normals = normals_ + begin,
                    .words = words_ + begin,
                    .size = size,
                    .relative = error_.relative,
                    .last_struck = last_struck_});
  }

  void EndBlock(float* block, int64_t count) {
    kernels::RowSums sums;
    kernels_.replace({.y = block, .after = after_, .count = count, .sums = &sums});
    if (stats_ == nullptr) return;
    stats_->changed += static_cast<uint64_t>(sums.changed);
    stats_->non_finite += static_cast<uint64_t>(sums.non_finite);
    stats_->sum_sq_error.Add(sums.error);
    stats_->sum_sq_value.Add(sums.value);
  }

 private:
  const OperatorError& error_;
  const uint32_t site_;
  ErrorStats* const stats_;
  const Kernels kernels_;
  uint32_t last_struck_ = 0;
  alignas(64) float normals_[kBlockElements];
  alignas(64) float words_[kBlockElements];
  alignas(64) float after_[kBlockElements];
};

void PerturbRow(float* row, int64_t cols, const RowKey& key, Perturbation* perturbation) {
  const float size = perturbation->SizeOf(row, cols);
  for (int64_t first = 0; first < cols; first += kBlockElements) {
    const int64_t count = std::min(kBlockElements, cols - first);
    perturbation->BeginBlock(key, first, count);
    perturbation->PerturbPiece(row + first, 0, count, size);
    perturbation->EndBlock(row + first, count);
  }
}

// Blocks run over the flat weight; a row may begin and end inside of one. A row's size is taken
// when its first element comes up, before anything of it has changed.
void PerturbFlat(float* w, int64_t out, int64_t in, const RowKey& key, Perturbation* perturbation) {
  const int64_t total = out * in;
  int64_t row = -1;
  float size = 0.0f;
  for (int64_t first = 0; first < total; first += kBlockElements) {
    const int64_t count = std::min(kBlockElements, total - first);
    perturbation->BeginBlock(key, first, count);
    for (int64_t at = first; at < first + count;) {
      if (at / in != row) {
        row = at / in;
        size = perturbation->SizeOf(w + row * in, in);
      }
      const int64_t end = std::min(first + count, (row + 1) * in);
      perturbation->PerturbPiece(w + first, at - first, end - first, size);
      at = end;
    }
    perturbation->EndBlock(w + first, count);
  }
}

// relative_gaussian has loops of its own, and so has strength 0, which is that of every type.
bool IsRelativeGaussian(const OperatorError& error) {
  return !error.acts() || error.type == ErrorType::kRelativeGaussian;
}

}  // namespace

std::string_view ErrorTypeName(ErrorType type) { return kNames[static_cast<size_t>(type)]; }

std::optional<ErrorType> ErrorTypeFromName(std::string_view name) {
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) return std::nullopt;
  return static_cast<ErrorType>(it - kNames.begin());
}

std::string_view StrengthName(ErrorType type) {
  if (type == ErrorType::kDeadzone) return "deadzone_threshold";
  const bool fault = type == ErrorType::kSaturation || type == ErrorType::kSpike;
  return fault ? "fault_magnitude" : "error_scale";
}

absl::Status CheckStrength(ErrorType type, double strength) {
  const auto refuse = [&](std::string_view range) {
    return absl::InvalidArgumentError(absl::StrFormat("%s %g of %s is not a finite number %s",
                                                      StrengthName(type), strength,
                                                      ErrorTypeName(type), range));
  };
  if (!std::isfinite(strength) || strength < 0.0) return refuse(">= 0");
  if (type == ErrorType::kDeadzone && strength >= 1.0) return refuse("below 1");
  if (type == ErrorType::kSaturation && strength > 1.0) return refuse("up to 1");
  return absl::OkStatus();
}

std::string DescribeError(const OperatorError& error) {
  std::string text = absl::StrFormat("%s %g", ErrorTypeName(error.type), error.strength);
  if (error.type == ErrorType::kSystematicBias && error.relative) text += " (relative)";
  if (error.type == ErrorType::kSpike) {
    text += absl::StrFormat(" (probability %g)", error.spike_probability);
  }
  if (error.random() && error.draw == GaussianDraw::kFast) text += " (fast)";
  return text;
}

void ApplyError(const OperatorError& error, float* y, int64_t rows, int64_t cols,
                int64_t row_stride, std::span<const RowKey> row_keys, uint32_t site,
                ErrorStats* stats, SimdPath path) {
  if (IsRelativeGaussian(error)) {
    ApplyRelativeGaussian(y, rows, cols, row_stride, row_keys, site, error.strength, stats, path,
                          error.draw);
    return;
  }
  if (rows <= 0 || cols <= 0) return;
  TEMPER_CHECK(static_cast<int64_t>(row_keys.size()) == rows, "one key per row");
  TEMPER_CHECK(cols <= kMaxElements, "a row's elements fit the counter");
  Perturbation perturbation(error, site, stats, path);
  for (int64_t r = 0; r < rows; ++r) {
    PerturbRow(y + r * row_stride, cols, row_keys[static_cast<size_t>(r)], &perturbation);
  }
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols);
  }
}

void ApplyErrorToWeight(const OperatorError& error, float* w, int64_t out, int64_t in, uint64_t key,
                        uint32_t site, ErrorStats* stats, SimdPath path) {
  if (IsRelativeGaussian(error)) {
    ApplyRelativeGaussianFlat(w, out * in, key, site, error.strength, stats, 0, path, error.draw);
    return;
  }
  if (out <= 0 || in <= 0) return;
  TEMPER_CHECK(in <= kMaxElements / out, "a weight's elements fit the counter");
  Perturbation perturbation(error, site, stats, path);
  PerturbFlat(w, out, in, {.key = key}, &perturbation);
  if (stats != nullptr) {
    ++stats->calls;
    stats->elements += static_cast<uint64_t>(out) * static_cast<uint64_t>(in);
  }
}

}  // namespace temper::numerics
