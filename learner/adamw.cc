#include "learner/adamw.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "services/base/check.h"

namespace temper::learner {
namespace {

struct UpdateScalars {
  float decay;  // 1 - lr * wd
  float beta1;
  float one_less_beta1;  // rounded once from double, as torch does
  float beta2;
  float one_less_beta2;
  float step_size;        // lr / (1 - b1^k)
  float root_correction;  // sqrt(1 - b2^k)
  float epsilon;
  float gradient_scale;
};

// Plain loop over independent elements: the compiler makes vector code of it.
void UpdateOne(float* __restrict value, const float* __restrict gradient, float* __restrict first,
               float* __restrict second, size_t size, const UpdateScalars& s) {
  for (size_t i = 0; i < size; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float m = s.beta1 * first[i] + s.one_less_beta1 * g;
    const float v = s.beta2 * second[i] + s.one_less_beta2 * g * g;
    first[i] = m;
    second[i] = v;
    const float denominator = std::sqrt(v) / s.root_correction + s.epsilon;
    value[i] = value[i] * s.decay - s.step_size * (m / denominator);
  }
}

}  // namespace

void AdamW::AddParameter(std::string name, size_t size) {
  moments_.push_back({std::move(name), std::vector<float>(size), std::vector<float>(size)});
}

void AdamW::Step(std::span<const ParameterSpan> parameters, double learning_rate,
                 float gradient_scale) {
  TEMPER_CHECK(parameters.size() == moments_.size(), "every parameter has moments");
  ++updates_;
  const double k = static_cast<double>(updates_);
  const UpdateScalars scalars = {
      .decay = static_cast<float>(1.0 - learning_rate * options_.weight_decay),
      .beta1 = static_cast<float>(options_.beta1),
      .one_less_beta1 = static_cast<float>(1.0 - options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .one_less_beta2 = static_cast<float>(1.0 - options_.beta2),
      .step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options_.beta1, k))),
      .root_correction = static_cast<float>(std::sqrt(1.0 - std::pow(options_.beta2, k))),
      .epsilon = static_cast<float>(options_.epsilon),
      .gradient_scale = gradient_scale};
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterSpan& parameter = parameters[i];
    AdamWMoments& moments = moments_[i];
    TEMPER_CHECK(parameter.value.size() == moments.first.size() &&
                     parameter.gradient.size() == moments.first.size(),
                 "parameter, gradient and moments have one length");
    UpdateOne(parameter.value.data(), parameter.gradient.data(), moments.first.data(),
              moments.second.data(), moments.first.size(), scalars);
  }
}

double GlobalNorm(std::span<const ParameterSpan> parameters) {
  double total = 0.0;
  for (const ParameterSpan& parameter : parameters) {
    double sum = 0.0;
    for (const float g : parameter.gradient) sum += static_cast<double>(g) * g;
    total += sum;
  }
  return std::sqrt(total);
}

double ClipFactor(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace temper::learner
