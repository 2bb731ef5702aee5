// The perturbed linear operator alone, product by product, against chains of fused multiply-adds.

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "model/train_context.h"
#include "numerics/gaussian.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::ErrorType;
using numerics::TensorRole;

constexpr int64_t kOut = 40, kIn = 56;
constexpr numerics::Operator kOp = numerics::Operator::kDown;
constexpr int kLayer = 1;

at::Tensor Normals(std::vector<int64_t> sizes, uint64_t key) {
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  numerics::FillGaussian(tensor.data_ptr<float>(), tensor.numel(), key, 0);
  return tensor;
}

std::vector<float> ToVector(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), tensor.data_ptr<float>() + tensor.numel()};
}

// a [m, k] times b [n, k] transposed, each number one chain with k ascending.
std::vector<float> Product(const float* a, int64_t m, const float* b, int64_t n, int64_t k,
                           int64_t b_row, int64_t b_column) {
  std::vector<float> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0.0f;
      for (int64_t l = 0; l < k; ++l) {
        sum = std::fma(a[i * k + l], b[j * b_row + l * b_column], sum);
      }
      c[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

struct Linear {
  explicit Linear(const numerics::NoisePolicy& policy)
      : context(TinyConfig(), {.threads = 2}),
        weight(Normals({kOut, kIn}, 1)),
        bias(Normals({kOut}, 2)) {
    const std::vector<TrainGroup> groups = {
        {5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(4, 83, 2)}, {1, TinyPrompt(70, 83, 3)}}},
        {6, {4, 8}, {{3, TinyPrompt(5, 83, 4)}}}};
    pass = LayOutPass(groups, {.noise = {.policy = &policy, .run_seed = 3, .optimizer_step = 2}},
                      &context)
               .value();
    const float* w = weight.data_ptr<float>();
    std::vector<float> transposed(kOut * kIn);
    for (int64_t n = 0; n < kOut; ++n) {
      for (int64_t k = 0; k < kIn; ++k) {
        transposed[static_cast<size_t>(k * kOut + n)] = w[n * kIn + k];
      }
    }
    context.linears.resize(1);
    context.linears[0] = {.forward = numerics::Pack(w, kOut, kIn),
                          .transposed = numerics::Pack(transposed.data(), kIn, kOut)};
    x = Normals({pass->rows(), kIn}, 3);
    for (at::Tensor* leaf : {&x, &weight, &bias}) leaf->set_requires_grad(true);
  }

  TrainContext context;
  at::Tensor weight, bias, x;
  PassHandle pass;
};

void Perturb(const numerics::OperatorError& error, TensorRole role,
             const std::vector<numerics::RowKey>& keys, std::vector<float>* y, int64_t cols) {
  numerics::ApplyError(error, y->data(), static_cast<int64_t>(keys.size()), cols, cols, keys,
                       numerics::Site(kLayer, kOp, role), nullptr);
}

// g D as NUMERICS says: 1 + s n for relative Gaussian error, 1 + s for the relative bias, else 1.
std::vector<float> TimesD(const numerics::OperatorError& error, bool pathwise,
                          const std::vector<numerics::RowKey>& keys, const float* g) {
  std::vector<float> scaled(g, g + static_cast<int64_t>(keys.size()) * kOut);
  if (!pathwise) return scaled;
  for (size_t r = 0; r < keys.size(); ++r) {
    std::vector<float> n(kOut);
    numerics::FillGaussian(n.data(), kOut, keys[r].key,
                           numerics::Site(kLayer, kOp, TensorRole::kOutput), keys[r].position,
                           keys[r].lane);
    for (size_t c = 0; c < kOut; ++c) {
      float d = 1.0f;
      if (error.type == ErrorType::kRelativeGaussian) d = std::fma(error.strength, n[c], 1.0f);
      if (error.type == ErrorType::kSystematicBias && error.relative) d = 1.0f + error.strength;
      scaled[r * kOut + c] *= d;
    }
  }
  return scaled;
}

void CheckProducts(const numerics::NoiseSpec& spec) {
  const numerics::NoisePolicy policy = PolicyOf(spec);
  Linear linear(policy);
  const TrainPass& pass = *linear.pass;
  const int64_t rows = pass.rows();
  const numerics::OperatorError error = policy.ErrorAt(
      policy.Scale(numerics::Phase::kTrain, numerics::Direction::kForward, kOp, kLayer));
  ASSERT_TRUE(error.acts());
  const at::Tensor y =
      LinearRows(linear.x, linear.weight, linear.bias, {kOp, kLayer, 0}, linear.pass);
  const float* x = linear.x.data_ptr<float>();
  const float* w = linear.weight.data_ptr<float>();
  std::vector<float> expected = Product(x, rows, w, kOut, kIn, kIn, 1);
  Perturb(error, TensorRole::kOutput, pass.forward_keys, &expected, kOut);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] += linear.bias.data_ptr<float>()[i % kOut];
  }
  EXPECT_EQ(ToVector(y.detach()), expected) << policy.Describe();

  const at::Tensor g = Normals({rows, kOut}, 4);
  torch::autograd::backward({y}, {g});
  const bool pathwise = spec.error_gradient == numerics::ErrorGradient::kPathwise;
  const std::vector<float> gd =
      TimesD(error, pathwise, pass.forward_keys, g.const_data_ptr<float>());
  std::vector<float> gx = Product(gd.data(), rows, w, kIn, kOut, 1, kIn);
  Perturb(error, TensorRole::kGradInput, pass.gradient_keys, &gx, kIn);
  EXPECT_EQ(ToVector(linear.x.grad()), gx) << policy.Describe();

  const std::vector<float> gw = ToVector(linear.weight.grad());
  const std::vector<float> gb = ToVector(linear.bias.grad());
  for (int64_t n = 0; n < kOut; ++n) {
    double bias = 0.0;
    for (int64_t r = 0; r < rows; ++r) bias += g.const_data_ptr<float>()[r * kOut + n];
    EXPECT_NEAR(gb[static_cast<size_t>(n)], bias, 1e-4);
    for (int64_t k = 0; k < kIn; ++k) {
      double sum = 0.0;
      for (int64_t r = 0; r < rows; ++r) {
        sum += double{gd[static_cast<size_t>(r * kOut + n)]} * x[r * kIn + k];
      }
      ASSERT_NEAR(gw[static_cast<size_t>(n * kIn + k)], sum, 1e-4) << policy.Describe();
    }
  }
}

TEST(LinearRows, EveryErrorHasTheProductsOfItsFormula) {
  for (numerics::NoiseSpec spec : EveryErrorSpec()) {
    for (const auto gradient :
         {numerics::ErrorGradient::kPathwise, numerics::ErrorGradient::kStraightThrough}) {
      spec.error_gradient = gradient;
      CheckProducts(spec);
    }
    spec.noise_key = numerics::NoiseKey::kFrozen;
    CheckProducts(spec);
  }
}

}  // namespace
}  // namespace temper::model
