#pragma once

// What can be seen of a device from outside: statistics of the outputs of its decoder layers. A
// profile of a healthy device over the same tokens is what another one is compared with.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/io/model_config.h"
#include "model/pass_observer.h"

namespace temper::scan {

// Directions that a layer's change is projected on: enough that a fault which leaves all the other
// statistics alone shows in some of them.
inline constexpr int kProjections = 8;

// Of one layer over all rows seen; x: its input, y: its output, u = y - x, all [hidden].
struct LayerProfile {
  int64_t rows = 0;
  double input_gain = 0.0;   // sqrt(sum y^2 / sum x^2)
  double update_gain = 0.0;  // sqrt(sum u^2 / sum x^2)
  double min_gain = 0.0;     // least and largest |y| / |x| of a row
  double max_gain = 0.0;
  double kurtosis = 0.0;    // mean u^4 / (mean u^2)^2, 3 for Gaussian u; mean over rows
  double crest = 0.0;       // upper edge of the histogram of |u|: max / rms, mean over rows
  double near_zero = 0.0;   // lower edge: share of |u| < 0.01 rms of its row
  double mean_ratio = 0.0;  // mean |u| / rms, mean over rows: 0.798 for Gaussian u
  // mean over rows of (s_k . u) / (|u|), s_k a vector of keyed signs.
  std::vector<double> projections;
};

// The statistics above by name, without rows and projections, for tables and files.
struct ProfileField {
  std::string_view name;
  double LayerProfile::*value;
};
std::span<const ProfileField> ProfileFields();

// Watches passes. Thread-compatible. Memory: one pass's rows of the residual stream, and constant
// sums.
class LayerProfiler final : public model::PassObserver {
 public:
  explicit LayerProfiler(const model::ModelConfig& config);
  void Observe(const model::ObservedRows& rows) override;
  void Merge(const LayerProfiler& other);
  std::vector<LayerProfile> Profiles() const;  // by layer

 private:
  struct Sums {
    int64_t rows = 0;
    double x_sq = 0.0, y_sq = 0.0, u_sq = 0.0;
    double min_gain = 1e300, max_gain = 0.0;
    double kurtosis = 0.0, crest = 0.0, near_zero = 0.0, mean_ratio = 0.0;
    double projections[kProjections] = {};
  };
  void AddRow(const float* x, const float* y, Sums* sums) const;

  int64_t hidden_;
  std::vector<double> signs_;    // [hidden][kProjections], +-1
  std::vector<float> previous_;  // the residual stream before the layer
  std::vector<Sums> sums_;
};

}  // namespace temper::scan
