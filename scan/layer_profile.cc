#include "scan/layer_profile.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "services/base/check.h"
#include "services/base/random_key.h"

namespace temper::scan {
namespace {

constexpr double kNearZero = 0.01;
// All profiles are projected on the same directions, or they could not be compared.
constexpr uint64_t kSignSeed = 0x5ca9;

constexpr std::array kFields = {
    ProfileField{"input_gain", &LayerProfile::input_gain},
    ProfileField{"update_gain", &LayerProfile::update_gain},
    ProfileField{"min_gain", &LayerProfile::min_gain},
    ProfileField{"max_gain", &LayerProfile::max_gain},
    ProfileField{"kurtosis", &LayerProfile::kurtosis},
    ProfileField{"crest", &LayerProfile::crest},
    ProfileField{"near_zero", &LayerProfile::near_zero},
    ProfileField{"mean_ratio", &LayerProfile::mean_ratio},
};

}  // namespace

std::span<const ProfileField> ProfileFields() { return kFields; }

LayerProfiler::LayerProfiler(const model::ModelConfig& config)
    : hidden_(config.hidden_size), sums_(static_cast<size_t>(config.num_layers)) {
  for (int64_t i = 0; i < kProjections * hidden_; ++i) {
    const auto element = static_cast<uint32_t>(i);
    const uint64_t key = base::RandomKey(kSignSeed, base::Purpose::kEvaluationError, 0);
    const std::array<uint32_t, 4> words = base::Philox({element / 4, 0, 0, 0}, key);
    signs_.push_back((words[element % 4] & 1) != 0 ? 1.0 : -1.0);
  }
}

void LayerProfiler::Observe(const model::ObservedRows& rows) {
  if (rows.point != model::ObservedPoint::kLayerOutput) return;
  if (rows.layer != numerics::kNoLayer) {
    Sums& sums = sums_[static_cast<size_t>(rows.layer)];
    for (int64_t r = 0; r < rows.rows; ++r) {
      AddRow(previous_.data() + r * hidden_, rows.x + r * hidden_, &sums);
    }
  }
  previous_.assign(rows.x, rows.x + rows.rows * hidden_);
}

void LayerProfiler::AddRow(const float* x, const float* y, Sums* sums) const {
  double x_sq = 0.0, y_sq = 0.0, u_sq = 0.0, u_fourth = 0.0, u_abs = 0.0, u_max = 0.0;
  double projections[kProjections] = {};
  const double* signs = signs_.data();
  for (int64_t i = 0; i < hidden_; ++i) {
    const double a = x[i], b = y[i], u = b - a;
    x_sq += a * a;
    y_sq += b * b;
    u_sq += u * u;
    u_fourth += u * u * u * u;
    u_abs += std::abs(u);
    u_max = std::max(u_max, std::abs(u));
    for (int k = 0; k < kProjections; ++k) projections[k] += u * signs[i * kProjections + k];
  }
  if (!(x_sq > 0.0 && u_sq > 0.0) || !std::isfinite(u_fourth)) return;  // nothing to relate to
  const auto n = static_cast<double>(hidden_);
  const double rms = std::sqrt(u_sq / n);
  int64_t near_zero = 0;
  for (int64_t i = 0; i < hidden_; ++i) {
    near_zero += std::abs(static_cast<double>(y[i]) - static_cast<double>(x[i])) < kNearZero * rms;
  }
  const double gain = std::sqrt(y_sq / x_sq);
  ++sums->rows;
  sums->x_sq += x_sq;
  sums->y_sq += y_sq;
  sums->u_sq += u_sq;
  sums->min_gain = std::min(sums->min_gain, gain);
  sums->max_gain = std::max(sums->max_gain, gain);
  sums->kurtosis += n * u_fourth / (u_sq * u_sq);
  sums->crest += u_max / rms;
  sums->near_zero += static_cast<double>(near_zero) / n;
  sums->mean_ratio += u_abs / n / rms;
  for (int k = 0; k < kProjections; ++k) sums->projections[k] += projections[k] / std::sqrt(u_sq);
}

void LayerProfiler::Merge(const LayerProfiler& other) {
  TEMPER_CHECK(sums_.size() == other.sums_.size(), "profiles of one model are merged");
  for (size_t l = 0; l < sums_.size(); ++l) {
    Sums& a = sums_[l];
    const Sums& b = other.sums_[l];
    a.rows += b.rows;
    a.x_sq += b.x_sq;
    a.y_sq += b.y_sq;
    a.u_sq += b.u_sq;
    a.min_gain = std::min(a.min_gain, b.min_gain);
    a.max_gain = std::max(a.max_gain, b.max_gain);
    a.kurtosis += b.kurtosis;
    a.crest += b.crest;
    a.near_zero += b.near_zero;
    a.mean_ratio += b.mean_ratio;
    for (int k = 0; k < kProjections; ++k) a.projections[k] += b.projections[k];
  }
}

std::vector<LayerProfile> LayerProfiler::Profiles() const {
  std::vector<LayerProfile> profiles;
  for (const Sums& sums : sums_) {
    LayerProfile& profile = profiles.emplace_back();
    profile.projections.resize(kProjections);
    if (sums.rows == 0) continue;
    const auto rows = static_cast<double>(sums.rows);
    profile.rows = sums.rows;
    profile.input_gain = std::sqrt(sums.y_sq / sums.x_sq);
    profile.update_gain = std::sqrt(sums.u_sq / sums.x_sq);
    profile.min_gain = sums.min_gain;
    profile.max_gain = sums.max_gain;
    profile.kurtosis = sums.kurtosis / rows;
    profile.crest = sums.crest / rows;
    profile.near_zero = sums.near_zero / rows;
    profile.mean_ratio = sums.mean_ratio / rows;
    for (size_t k = 0; k < kProjections; ++k) {
      profile.projections[k] = sums.projections[k] / rows;
    }
  }
  return profiles;
}

}  // namespace temper::scan
