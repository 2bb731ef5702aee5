#pragma once

// AdamW with decoupled weight decay, one fused float32 pass over each parameter:
//   p -= lr * wd * p
//   m  = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2
//   p -= lr / (1 - b1^k) * m / (sqrt(v / (1 - b2^k)) + epsilon),  k = number of this update, from 1
// as torch.optim.AdamW. Source: Loshchilov and Hutter, 2019, Algorithm 2.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace temper::learner {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

// One parameter and its gradient, of equal length.
struct ParameterSpan {
  std::span<float> value;
  std::span<const float> gradient;
};

// The moments of one parameter, by its Hugging Face name.
struct AdamWMoments {
  std::string name;
  std::vector<float> first;   // m
  std::vector<float> second;  // v
};

// Owns the moments. Thread-compatible. A fixed sequence of calls gives fixed bits.
class AdamW final {
 public:
  explicit AdamW(const AdamWOptions& options) : options_(options) {}

  // Adds a parameter of `size` elements with zero moments; call for all, in one order, first.
  void AddParameter(std::string name, size_t size);

  // Updates every parameter in the order they were added. gradient_scale multiplies each gradient
  // first (norm clipping; 1: none).
  void Step(std::span<const ParameterSpan> parameters, double learning_rate, float gradient_scale);

  // Updates applied so far: k of the formula, for the bias corrections.
  int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  std::vector<AdamWMoments>& moments() { return moments_; }
  const std::vector<AdamWMoments>& moments() const { return moments_; }

 private:
  const AdamWOptions options_;
  std::vector<AdamWMoments> moments_;
  int64_t updates_ = 0;
};

// Euclidean norm over all gradients, accumulated in double in fixed order. NaN or infinity in any
// of them makes the result not finite.
double GlobalNorm(std::span<const ParameterSpan> parameters);

// The factor that brings `norm` down to max_norm: min(1, max_norm / (norm + 1e-6)), as
// torch.nn.utils.clip_grad_norm_; 1 where max_norm <= 0.
double ClipFactor(double norm, double max_norm);

}  // namespace temper::learner
