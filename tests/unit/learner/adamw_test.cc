#include "learner/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace temper::learner {
namespace {

// The update in double precision, written from the paper's Algorithm 2, one scalar at a time.
struct Reference {
  double p, m = 0.0, v = 0.0;
  int k = 0;
  void Step(double g, double lr, const AdamWOptions& o) {
    ++k;
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(o.beta1, k));
    const double v_hat = v / (1 - std::pow(o.beta2, k));
    p = p - lr * o.weight_decay * p - lr * m_hat / (std::sqrt(v_hat) + o.epsilon);
  }
};

TEST(AdamWTest, FollowsTheReferenceOverManySteps) {
  const AdamWOptions options;
  AdamW adamw(options);
  constexpr size_t kSize = 37;  // not a multiple of any vector width
  adamw.AddParameter("a", kSize);
  std::vector<float> value(kSize);
  std::vector<float> gradient(kSize);
  std::vector<Reference> reference;
  for (size_t i = 0; i < kSize; ++i) {
    value[i] = 0.03f * static_cast<float>(i) - 0.5f;
    reference.push_back({.p = value[i]});
  }
  for (int step = 0; step < 50; ++step) {
    for (size_t i = 0; i < kSize; ++i) {
      gradient[i] = std::sin(0.7f * static_cast<float>(i) + 1.3f * static_cast<float>(step));
    }
    const double lr = 1e-3 / (1 + step);
    adamw.Step(std::vector<ParameterSpan>{{value, gradient}}, lr, 0.5f);
    for (size_t i = 0; i < kSize; ++i) reference[i].Step(0.5 * gradient[i], lr, options);
  }
  EXPECT_EQ(adamw.updates(), 50);
  for (size_t i = 0; i < kSize; ++i) EXPECT_NEAR(value[i], reference[i].p, 1e-6) << i;
}

// Worked by hand: p 1, g 0.5, lr 0.1: decay to 0.99, m_hat 0.5, v_hat 0.25, step 0.1 * 0.5 / 0.5.
TEST(AdamWTest, FirstStepMovesByTheLearningRateAgainstTheGradientsSign) {
  AdamW adamw({});
  adamw.AddParameter("a", 1);
  std::vector<float> value = {1.0f};
  const std::vector<float> gradient = {0.5f};
  adamw.Step(std::vector<ParameterSpan>{{value, gradient}}, 0.1, 1.0f);
  EXPECT_NEAR(value[0], 0.89, 1e-6);
}

TEST(AdamWTest, GlobalNormIsOverAllParameters) {
  std::vector<float> value(2);
  const std::vector<float> first = {3.0f, 0.0f};
  const std::vector<float> second = {0.0f, 4.0f};
  const std::vector<ParameterSpan> spans = {{value, first}, {value, second}};
  EXPECT_DOUBLE_EQ(GlobalNorm(spans), 5.0);
  EXPECT_NEAR(ClipFactor(5.0, 1.0), 0.2, 1e-6);
  EXPECT_DOUBLE_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipFactor(5.0, 0.0), 1.0);
}

TEST(AdamWTest, ANumberThatIsNotFiniteShowsInTheNorm) {
  std::vector<float> value(1);
  const std::vector<float> bad = {std::numeric_limits<float>::quiet_NaN()};
  EXPECT_FALSE(std::isfinite(GlobalNorm(std::vector<ParameterSpan>{{value, bad}})));
}

}  // namespace
}  // namespace temper::learner
