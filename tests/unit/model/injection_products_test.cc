// hw_error_injection in the learner's linear alone: every product against its closed form, over
// operands that are made here.

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "model/train_context.h"
#include "numerics/formats/fake_quantize.h"
#include "numerics/gaussian.h"
#include "services/base/random_key.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::ErrorType;
using numerics::InjectionPoint;
using numerics::RowKey;
using numerics::TensorRole;

constexpr int64_t kOut = 40, kIn = 72;
constexpr numerics::Operator kOp = numerics::Operator::kDown;
constexpr int kLayer = 1;
constexpr uint64_t kSeed = 3, kVersion = 9;

at::Tensor Normals(std::vector<int64_t> sizes, uint64_t key) {
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  numerics::FillGaussian(tensor.data_ptr<float>(), tensor.numel(), key, 0);
  return tensor;
}

std::vector<float> ToVector(const at::Tensor& tensor) {
  const float* values = tensor.const_data_ptr<float>();
  return {values, values + tensor.numel()};
}

uint32_t Site(TensorRole role) { return numerics::Site(kLayer, kOp, role); }

// The keys of an injection's rows, by the table of docs/numerics.md: two groups of prompts and
// completions as Linear lays them out.
std::vector<RowKey> RowKeys(bool rounding) {
  std::vector<RowKey> keys;
  const auto add = [&](uint64_t group, uint32_t prompt, const std::vector<RowKey>& completions) {
    const uint64_t key = base::RandomKey(
        kSeed, rounding ? base::Purpose::kStochasticRounding : base::Purpose::kForwardError, group);
    for (uint32_t i = 0; i < prompt; ++i) keys.push_back({key, i, 0});
    for (const RowKey& run : completions) {  // position: tokens that are rows
      for (uint32_t i = 0; i < run.position; ++i) keys.push_back({key, prompt + i, run.lane});
    }
  };
  add(5, 6, {{0, 3, 1}, {0, 69, 2}});
  add(6, 2, {{0, 4, 4}});
  return keys;
}

std::vector<float> PerturbedRows(const numerics::InjectionSpec& spec, const std::vector<float>& x,
                                 int64_t cols, const std::vector<RowKey>& keys, TensorRole role) {
  std::vector<float> out = x;
  const auto rows = static_cast<int64_t>(keys.size());
  if (!spec.format.has_value()) {
    numerics::ApplyError(spec.error, out.data(), rows, cols, cols, keys, Site(role), nullptr);
    return out;
  }
  numerics::FormatSpec format = *spec.format;
  format.block_2d = false;  // tiles are the weight's
  numerics::FakeQuantizer::Create(format, numerics::Operand::kActivation)
      .value()
      .QuantizeRows({x.data(), out.data(), rows, cols, cols, cols}, keys, Site(role));
  return out;
}

uint64_t WeightKey(bool rounding) {
  return base::RandomKey(
      kSeed, rounding ? base::Purpose::kStochasticRounding : base::Purpose::kWeightError, kVersion);
}

std::vector<float> PerturbedWeight(const numerics::InjectionSpec& spec,
                                   const std::vector<float>& w) {
  std::vector<float> out = w;
  if (!spec.format.has_value()) {
    numerics::ApplyErrorToWeight(spec.error, out.data(), kOut, kIn, WeightKey(false),
                                 Site(TensorRole::kWeightOperand), nullptr);
    return out;
  }
  const int64_t shape[] = {kOut, kIn};
  EXPECT_TRUE(numerics::FakeQuantizer::Create(*spec.format, numerics::Operand::kWeight)
                  .value()
                  .QuantizeWeight(shape, w.data(), out.data(), nullptr, WeightKey(true),
                                  Site(TensorRole::kWeightOperand))
                  .ok());
  return out;
}

// D of rows, or of a weight (no keys): 1 + s n, 1 + s or 1, each from the formula.
std::vector<float> FactorD(const numerics::InjectionSpec& spec, size_t rows, int64_t cols,
                           const std::vector<RowKey>& keys, TensorRole role) {
  std::vector<float> d(rows * static_cast<size_t>(cols), 1.0f);
  if (spec.format.has_value()) return d;
  const bool gaussian = spec.error.type == ErrorType::kRelativeGaussian;
  if (spec.error.type == ErrorType::kSystematicBias && spec.error.relative) {
    std::fill(d.begin(), d.end(), 1.0f + spec.error.strength);
  }
  if (gaussian && keys.empty()) {
    std::vector<float> n(d.size());
    numerics::FillGaussian(n.data(), static_cast<int64_t>(n.size()), WeightKey(false), Site(role));
    for (size_t i = 0; i < d.size(); ++i) d[i] = std::fma(spec.error.strength, n[i], 1.0f);
  }
  for (size_t r = 0; gaussian && r < keys.size(); ++r) {
    std::vector<float> n(static_cast<size_t>(cols));
    numerics::FillGaussian(n.data(), cols, keys[r].key, Site(role), keys[r].position, keys[r].lane);
    for (size_t c = 0; c < n.size(); ++c) {
      d[r * n.size() + c] = std::fma(spec.error.strength, n[c], 1.0f);
    }
  }
  return d;
}

// a [m, k] times b transposed, each number one chain with k ascending.
std::vector<float> Product(const std::vector<float>& a, const std::vector<float>& b, int64_t n,
                           int64_t k, int64_t b_row, int64_t b_column) {
  const auto m = static_cast<int64_t>(a.size()) / k;
  std::vector<float> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0.0f;
      for (int64_t l = 0; l < k; ++l) {
        sum = std::fma(a[static_cast<size_t>(i * k + l)],
                       b[static_cast<size_t>(j * b_row + l * b_column)], sum);
      }
      c[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

void MultiplyBy(const std::vector<float>& d, std::vector<float>* values) {
  for (size_t i = 0; i < d.size(); ++i) (*values)[i] *= d[i];
}

// The linear of a pass under `policy`; W^ is packed as the model does before a pass.
struct Linear {
  Linear(const numerics::NoisePolicy& policy, const std::vector<float>& weight_hat)
      : context(TinyConfig(), {.threads = 2}),
        weight(Normals({kOut, kIn}, 1)),
        bias(Normals({kOut}, 2)) {
    const std::vector<TrainGroup> groups = {
        {5, TinyPrompt(6, 83, 1), {{0, TinyPrompt(4, 83, 2)}, {1, TinyPrompt(70, 83, 3)}}},
        {6, {4, 8}, {{3, TinyPrompt(5, 83, 4)}}}};
    const TrainNoise noise = {
        .policy = &policy, .run_seed = kSeed, .optimizer_step = 2, .policy_version = kVersion};
    pass = LayOutPass(groups, {.noise = noise}, &context).value();
    pass->injected = std::make_shared<std::vector<PackedLinear>>(1);
    context.linears.resize(1);
    Pack(ToVector(weight), &context.linears[0]);
    Pack(weight_hat, &(*pass->injected)[0]);
    x = Normals({pass->rows(), kIn}, 3);
    for (at::Tensor* leaf : {&x, &weight, &bias}) leaf->set_requires_grad(true);
  }

  static void Pack(const std::vector<float>& w, PackedLinear* packed) {
    std::vector<float> transposed(w.size());
    for (int64_t n = 0; n < kOut; ++n) {
      for (int64_t k = 0; k < kIn; ++k) {
        transposed[static_cast<size_t>(k * kOut + n)] = w[static_cast<size_t>(n * kIn + k)];
      }
    }
    packed->forward = numerics::Pack(w.data(), kOut, kIn);
    packed->transposed = numerics::Pack(transposed.data(), kIn, kOut);
  }

  TrainContext context;
  at::Tensor weight, bias, x;
  PassHandle pass;
};

void CheckProducts(const numerics::InjectionSpec& spec, const numerics::NoiseSpec& noise) {
  const numerics::NoisePolicy policy = InjectedPolicy(spec, noise);
  SCOPED_TRACE(policy.injection().Describe() + "; " + policy.Describe());
  const std::vector<float> w = ToVector(Normals({kOut, kIn}, 1));
  const bool in = spec.point == InjectionPoint::kInput || spec.point == InjectionPoint::kBoth;
  const bool out = spec.point == InjectionPoint::kOutput;
  const bool weight = spec.point == InjectionPoint::kWeight || spec.point == InjectionPoint::kBoth;
  const std::vector<float> w_hat = weight ? PerturbedWeight(spec, w) : w;
  Linear linear(policy, w_hat);
  const TrainPass& pass = *linear.pass;
  const bool rounding = spec.format.has_value() && spec.format->stochastic_rounding;
  const std::vector<RowKey> keys = RowKeys(rounding);
  const auto rows = static_cast<size_t>(pass.rows());
  ASSERT_EQ(keys.size(), rows);
  const std::vector<float> x = ToVector(linear.x.detach());
  const std::vector<float> x_hat =
      in ? PerturbedRows(spec, x, kIn, keys, TensorRole::kInputOperand) : x;
  EXPECT_EQ(x_hat != x, in);
  EXPECT_EQ(w_hat != w, weight);

  // y = E(e(x^ W^^T)) + b
  const at::Tensor y =
      LinearRows(linear.x, linear.weight, linear.bias, {kOp, kLayer, 0}, linear.pass);
  std::vector<float> expected = Product(x_hat, w_hat, kOut, kIn, kIn, 1);
  const numerics::OperatorError operator_error =
      policy.Error(numerics::Phase::kTrain, numerics::Direction::kForward, kOp, kLayer);
  numerics::ApplyError(operator_error, expected.data(), pass.rows(), kOut, kOut, pass.forward_keys,
                       Site(TensorRole::kOutput), nullptr);
  if (out) expected = PerturbedRows(spec, expected, kOut, keys, TensorRole::kInjectedOutput);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] += linear.bias.const_data_ptr<float>()[i % kOut];
  }
  EXPECT_EQ(ToVector(y.detach()), expected);

  // g_x = ((g D) W^) D_x, g_W = ((g D)^T x^) D_W
  const at::Tensor g = Normals({pass.rows(), kOut}, 4);
  torch::autograd::backward({y}, {g});
  std::vector<float> gd = ToVector(g);
  if (out) MultiplyBy(FactorD(spec, rows, kOut, keys, TensorRole::kInjectedOutput), &gd);
  numerics::ApplyError(pass.GradientFactor(kOp, kLayer), gd.data(), pass.rows(), kOut, kOut,
                       pass.forward_keys, Site(TensorRole::kOutput), nullptr);
  std::vector<float> gx = Product(gd, w_hat, kIn, kOut, 1, kIn);
  if (in) MultiplyBy(FactorD(spec, rows, kIn, keys, TensorRole::kInputOperand), &gx);
  numerics::ApplyError(pass.InputGradientError(kOp, kLayer), gx.data(), pass.rows(), kIn, kIn,
                       pass.gradient_keys, Site(TensorRole::kGradInput), nullptr);
  EXPECT_EQ(ToVector(linear.x.grad()), gx);

  const std::vector<float> d_w = weight ? FactorD(spec, kOut, kIn, {}, TensorRole::kWeightOperand)
                                        : std::vector<float>(static_cast<size_t>(kOut * kIn), 1.0f);
  const std::vector<float> gw = ToVector(linear.weight.grad());
  for (size_t n = 0; n < kOut; ++n) {
    for (size_t k = 0; k < kIn; ++k) {
      double sum = 0.0;
      for (size_t r = 0; r < rows; ++r) sum += double{gd[r * kOut + n]} * x_hat[r * kIn + k];
      ASSERT_NEAR(gw[n * kIn + k], sum * d_w[n * kIn + k], 1e-4);
    }
  }
  EXPECT_EQ(ToVector(linear.weight.detach()), w) << "the master weight is not edited";
}

TEST(Injection, EveryErrorAtEveryPointHasTheProductsOfItsFormula) {
  for (const numerics::InjectionSpec& spec : EveryInjectionSpec()) CheckProducts(spec, {});
}

TEST(Injection, OperandsErrBeforeTheOperatorAndResultsAfterIt) {
  numerics::NoiseSpec noise = EveryErrorSpec()[0];
  for (const auto key : {numerics::NoiseKey::kFresh, numerics::NoiseKey::kFrozen}) {
    noise.noise_key = key;  // of noisy_ops alone: an injection has no frozen draw
    for (const numerics::InjectionSpec& spec : EveryInjectionSpec()) CheckProducts(spec, noise);
  }
}

}  // namespace
}  // namespace temper::model
