// Low-rank adapters: their products one by one, gradients against differences, and both engines.

#include "model/adapter_parameters.h"

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "model/decode_engine.h"
#include "model/train_context.h"
#include "model/train_forward.h"
#include "numerics/gaussian.h"
#include "numerics/noise_counters.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/model/tiny_model.h"

namespace temper::model {
namespace {

using numerics::Operator;
using numerics::TensorRole;
using temper::testing::IsOk;

constexpr int64_t kRank = 3;

LoraSpec Spec(const ModelConfig& config, std::vector<std::string> targets = {}) {
  return MakeLoraSpec(config, {.enabled = true,
                               .rank = kRank,
                               .alpha = 5.0,
                               .target_modules = std::move(targets),
                               .exclude_modules = {}})
      .value();
}

// A tiny model whose adapters have been trained: B is not zero.
Parameters Adapted(const ModelConfig& config = TinyConfig(),
                   const std::vector<std::string>& targets = {}) {
  Parameters parameters =
      WithFreshAdapter(TinyParameters(config), Spec(config, targets), 9).value();
  for (size_t i = 1; i < parameters.adapter.size(); i += 2) {
    const at::Tensor& b = parameters.adapter[i].second;
    float* values = b.data_ptr<float>();
    numerics::FillGaussian(values, b.numel(), 77, static_cast<uint32_t>(i));
    for (int64_t k = 0; k < b.numel(); ++k) values[k] *= 0.05f;
  }
  return parameters;
}

std::vector<float> ToVector(const at::Tensor& tensor) {
  return {tensor.data_ptr<float>(), tensor.data_ptr<float>() + tensor.numel()};
}

std::vector<TrainGroup> Batch() {
  return {{.group_index = 5,
           .prompt_ids = TinyPrompt(6, 83, 1),
           .completions = {{0, TinyPrompt(4, 83, 2)}, {1, TinyPrompt(70, 83, 3)}, {2, {9}}}},
          {.group_index = 6, .prompt_ids = {4, 8}, .completions = {{3, TinyPrompt(5, 83, 4)}}}};
}

std::vector<float> Weights(int64_t count) {
  std::vector<float> weights;
  for (int64_t i = 0; i < count; ++i)
    weights.push_back(0.25f * static_cast<float>(i % 5 - 2) + 0.1f);
  return weights;
}

numerics::NoisePolicy PolicyWith(numerics::NoiseSpec spec, std::vector<std::string> targets,
                                 const Parameters& parameters) {
  spec.target_modules = std::move(targets);
  return numerics::NoisePolicy::Create(spec, NoiseShape(parameters.config, parameters.lora))
      .value();
}

const std::vector<std::string> kLinears = {"q", "k", "v", "o", "gate", "up", "down"};
const std::vector<std::string> kAll = {"q",  "k",    "v",       "o",      "gate",
                                       "up", "down", "lm_head", "lora_a", "lora_b"};

// ---- products -------------------------------------------------------------------------------

// a [m, k] times b transposed, b [n, k] at strides: one chain of fused multiply-adds, k ascending.
std::vector<float> Product(const std::vector<float>& a, int64_t m, const float* b, int64_t n,
                           int64_t k, int64_t b_row, int64_t b_column) {
  std::vector<float> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0.0f;
      for (int64_t l = 0; l < k; ++l) {
        sum = std::fma(a[static_cast<size_t>(i * k + l)], b[j * b_row + l * b_column], sum);
      }
      c[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

// Each gradient of W[out, in] from g [rows, out] and x [rows, in], in double.
void ExpectWeightGradient(const at::Tensor& gradient, const std::vector<float>& g,
                          const std::vector<float>& x, int64_t rows) {
  const int64_t out = gradient.size(0), in = gradient.size(1);
  double worst = 0.0;
  for (int64_t n = 0; n < out; ++n) {
    for (int64_t k = 0; k < in; ++k) {
      double sum = 0.0;
      for (int64_t r = 0; r < rows; ++r) {
        sum += double{g[static_cast<size_t>(r * out + n)]} * x[static_cast<size_t>(r * in + k)];
      }
      worst = std::max(worst, std::abs(gradient.data_ptr<float>()[n * in + k] - sum));
    }
  }
  EXPECT_LT(worst, 2e-3);  // sums of some 100 products of size 10
}

// The branch of the down projection of layer 1, by the formulas of train_adapter.cc.
void CheckProducts(const numerics::NoiseSpec& spec) {
  constexpr int64_t kOut = 40, kIn = 56;
  const LoraModule module = {Operator::kDown, 1, kIn, kOut};
  const Parameters parameters = Adapted();
  const numerics::NoisePolicy policy = PolicyWith(spec, kAll, parameters);
  TrainContext context(parameters.config, {.threads = 2});
  const auto normals = [](std::vector<int64_t> sizes, uint64_t key) {
    at::Tensor tensor = at::empty(sizes, at::kFloat);
    numerics::FillGaussian(tensor.data_ptr<float>(), tensor.numel(), key, 0);
    return tensor;
  };
  at::Tensor a = normals({kRank, kIn}, 1), b = normals({kOut, kRank}, 2);
  const auto pack = [](const at::Tensor& w) {
    const int64_t out = w.size(0), in = w.size(1);
    std::vector<float> transposed(static_cast<size_t>(out * in));
    for (int64_t n = 0; n < out; ++n) {
      for (int64_t k = 0; k < in; ++k) {
        transposed[static_cast<size_t>(k * out + n)] = w.data_ptr<float>()[n * in + k];
      }
    }
    return PackedLinear{.forward = numerics::Pack(w.data_ptr<float>(), out, in),
                        .transposed = numerics::Pack(transposed.data(), in, out)};
  };
  context.adapters.push_back({.a = pack(a), .b = pack(b), .module = module, .scale = 0.7f});
  const PassHandle pass =
      LayOutPass(Batch(), {.noise = {.policy = &policy, .run_seed = 3, .optimizer_step = 2}},
                 &context)
          .value();
  const int64_t rows = pass->rows();
  at::Tensor x = normals({rows, kIn}, 3), y = normals({rows, kOut}, 4);
  for (at::Tensor* leaf : {&x, &y, &a, &b}) leaf->set_requires_grad(true);

  const numerics::OperatorError error = policy.Error(
      numerics::Phase::kTrain, numerics::Direction::kForward, Operator::kLoraA, module.layer);
  ASSERT_TRUE(error.acts());
  const auto perturb = [&](Operator op, TensorRole role, int64_t cols,
                           const std::vector<numerics::RowKey>& keys, std::vector<float>* values) {
    numerics::ApplyError(error, values->data(), rows, cols, cols, keys,
                         numerics::AdapterSite(module.layer, op, module.op, role), nullptr);
  };
  // D of relative Gaussian error and of the relative bias is what they do; of the others 1.
  const bool pathwise = spec.error_gradient == numerics::ErrorGradient::kPathwise;
  const auto times_d = [&](Operator op, int64_t cols, std::vector<float>* values) {
    if (pathwise && error.linear()) {
      perturb(op, TensorRole::kOutput, cols, pass->forward_keys, values);
    }
  };

  std::vector<float> t = Product(ToVector(x), rows, a.data_ptr<float>(), kRank, kIn, kIn, 1);
  perturb(Operator::kLoraA, TensorRole::kOutput, kRank, pass->forward_keys, &t);
  std::vector<float> u = Product(t, rows, b.data_ptr<float>(), kOut, kRank, kRank, 1);
  perturb(Operator::kLoraB, TensorRole::kOutput, kOut, pass->forward_keys, &u);
  std::vector<float> expected = ToVector(y.detach());
  for (size_t i = 0; i < u.size(); ++i) {
    const float scaled = u[i] * 0.7f;
    expected[i] += scaled;
  }
  const at::Tensor adapted = AdaptRows(y, x, a, b, 0, pass);
  EXPECT_EQ(ToVector(adapted.detach()), expected) << policy.Describe();

  const at::Tensor g = normals({rows, kOut}, 5);
  torch::autograd::backward({adapted}, {g});
  std::vector<float> h = ToVector(g);
  for (float& value : h) value *= 0.7f;
  times_d(Operator::kLoraB, kOut, &h);
  std::vector<float> gt = Product(h, rows, b.data_ptr<float>(), kRank, kOut, 1, kRank);
  perturb(Operator::kLoraB, TensorRole::kGradInput, kRank, pass->gradient_keys, &gt);
  times_d(Operator::kLoraA, kRank, &gt);
  std::vector<float> gx = Product(gt, rows, a.data_ptr<float>(), kIn, kRank, 1, kIn);
  perturb(Operator::kLoraA, TensorRole::kGradInput, kIn, pass->gradient_keys, &gx);
  EXPECT_EQ(ToVector(x.grad()), gx) << policy.Describe();
  EXPECT_EQ(ToVector(y.grad()), ToVector(g));
  ExpectWeightGradient(a.grad(), gt, ToVector(x.detach()), rows);
  ExpectWeightGradient(b.grad(), h, t, rows);
}

TEST(AdaptRows, EveryErrorHasTheProductsOfItsFormula) {
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

// ---- the learner ----------------------------------------------------------------------------

double Loss(TrainModel& model, const LogProbOptions& options) {
  model.ParametersChanged();
  LogProbOptions forward = options;
  forward.gradients = false;
  const LogProbs pass = model.Forward(Batch(), forward, nullptr).value();
  const std::vector<float> logprobs = ToVector(pass.logprobs);
  const std::vector<float> weights = Weights(pass.logprobs.numel());
  double loss = 0.0;
  for (size_t i = 0; i < logprobs.size(); ++i) loss += double{logprobs[i]} * weights[i];
  return loss;
}

// Central differences along the gradient of each adapter matrix.
void CheckAgainstDifferences(const Parameters& parameters, const LogProbOptions& options) {
  auto model = TrainModel::Create(parameters, {.threads = 2, .head_rows = 5}).value();
  const LogProbs pass = model->Forward(Batch(), options, nullptr).value();
  ASSERT_THAT(model->Backward(pass, Weights(pass.logprobs.numel()), nullptr), IsOk());
  for (auto& [name, tensor] : model->parameters().adapter) {
    const std::vector<float> gradient = ToVector(tensor.grad());
    float* values = tensor.data_ptr<float>();
    const std::vector<float> kept(values, values + tensor.numel());
    double norm = 0.0;
    for (float g : gradient) norm += double{g} * g;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 1e-4) << name;
    const double step = 1e-3;
    const auto at = [&](double sign) {
      for (size_t i = 0; i < kept.size(); ++i) {
        values[i] = static_cast<float>(kept[i] + sign * step * gradient[i] / norm);
      }
      return Loss(*model, options);
    };
    const double slope = (at(1.0) - at(-1.0)) / (2.0 * step);
    std::copy(kept.begin(), kept.end(), values);
    EXPECT_NEAR(slope, norm, 0.02 * norm + 1e-2) << name;
  }
}

TEST(AdaptedTrainModel, GradientsAgreeWithFiniteDifferences) {
  CheckAgainstDifferences(Adapted(), {.temperature = 0.8});
}

TEST(AdaptedTrainModel, GradientsUnderForwardErrorArePathwise) {
  const Parameters parameters = Adapted();
  for (const std::vector<std::string>& targets : {kLinears, kAll}) {
    const numerics::NoisePolicy policy = PolicyWith(
        {.enabled = true, .error_scale = 0.2, .forward_only = true}, targets, parameters);
    CheckAgainstDifferences(parameters, {.noise = {.policy = &policy, .run_seed = 3}});
  }
}

TEST(AdaptedTrainModel, TheBaseGetsNoGradientAndIsShared) {
  for (const bool tied : {true, false}) {
    ModelConfig config = TinyConfig();
    config.tie_word_embeddings = tied;
    const Parameters parameters = Adapted(config);
    const uint64_t hash = HashParameters(parameters);
    const numerics::NoisePolicy policy =
        PolicyWith({.enabled = true, .error_scale = 0.1}, kAll, parameters);
    auto model = TrainModel::Create(parameters, {.threads = 2}).value();
    const TrainNoise noise = {.policy = &policy, .run_seed = 3};
    const LogProbs pass = model->Forward(Batch(), {.noise = noise}, nullptr).value();
    ASSERT_THAT(model->Backward(pass, Weights(pass.logprobs.numel()), nullptr), IsOk());
    ASSERT_THAT(model->ApplyGradWeightError(noise, nullptr), IsOk());
    for (size_t i = 0; i < parameters.named.size(); ++i) {
      const at::Tensor& own = model->parameters().named[i].second;
      EXPECT_FALSE(own.grad().defined()) << parameters.named[i].first;
      EXPECT_EQ(own.data_ptr<float>(), parameters.named[i].second.data_ptr<float>());
    }
    for (size_t i = 0; i < parameters.adapter.size(); ++i) {
      const at::Tensor& own = model->parameters().adapter[i].second;
      EXPECT_TRUE(own.grad().defined()) << parameters.adapter[i].first;
      EXPECT_NE(own.data_ptr<float>(), parameters.adapter[i].second.data_ptr<float>());
    }
    EXPECT_EQ(HashParameters(model->parameters()), hash);
  }
}

TEST(AdaptedTrainModel, AFreshAdapterLeavesTheBaseAsItIs) {
  const Parameters base = TinyParameters(TinyConfig());
  const Parameters fresh = WithFreshAdapter(base, Spec(base.config), 9).value();
  const auto logprobs = [](const Parameters& parameters) {
    auto model = TrainModel::Create(parameters, {.threads = 2}).value();
    return ToVector(model->Forward(Batch(), {.gradients = false}, nullptr).value().logprobs);
  };
  EXPECT_EQ(logprobs(fresh), logprobs(base));
  EXPECT_NE(logprobs(Adapted()), logprobs(base));
}

TEST(AdaptedTrainModel, AFreshAdapterIsUniformAndOfItsModuleAlone) {
  const Parameters base = TinyParameters(TinyConfig());
  const Parameters all = WithFreshAdapter(base, Spec(base.config), 9).value();
  const Parameters one =
      WithFreshAdapter(base, Spec(base.config, {"layers.1.mlp.down"}), 9).value();
  const Parameters other = WithFreshAdapter(base, Spec(base.config), 10).value();
  EXPECT_EQ(ToVector(one.adapter[0].second), ToVector(all.adapter[26].second));
  EXPECT_NE(ToVector(all.adapter[26].second), ToVector(other.adapter[26].second));
  EXPECT_NE(ToVector(all.adapter[0].second), ToVector(all.adapter[2].second));  // q and k
  double sum = 0.0, sum_of_squares = 0.0;
  int64_t count = 0;
  for (size_t i = 0; i < all.adapter.size(); i += 2) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(all.adapter[i].second.size(1)));
    for (const float value : ToVector(all.adapter[i].second)) {
      ASSERT_LE(std::abs(value), bound);
      sum += value / bound;
      sum_of_squares += value / bound * (value / bound);
      ++count;
    }
    for (const float value : ToVector(all.adapter[i + 1].second)) ASSERT_EQ(value, 0.0f);
  }
  EXPECT_NEAR(sum / static_cast<double>(count), 0.0, 0.05);
  EXPECT_NEAR(sum_of_squares / static_cast<double>(count), 1.0 / 3.0, 0.03);
}

// ---- sampler against learner ----------------------------------------------------------------

TEST(AdaptedEngines, TheLearnerReplaysWhatWasSampledToTheBitAndCountsTheSameErrors) {
  ModelConfig with_head_norms = TinyConfig();
  with_head_norms.architecture = "Qwen3ForCausalLM";
  with_head_norms.qkv_bias = false;
  with_head_norms.qk_norm = true;
  for (const ModelConfig& config : {TinyConfig(), with_head_norms}) {
    const Parameters parameters = Adapted(config);
    for (const numerics::NoiseSpec& spec : EveryErrorSpec()) {
      const numerics::NoisePolicy policy = PolicyWith(spec, kAll, parameters);
      auto engine = DecodeEngine::Create({.config = config, .threads = 2}).value();
      ASSERT_THAT(engine->Install(parameters, 0, {}).status(), IsOk());
      GenerateRequest request = {.max_completion_tokens = 20, .seed = 11, .policy = &policy};
      for (uint64_t scope : {4, 9}) {
        request.groups.push_back(
            {.scope = scope, .prompt_ids = TinyPrompt(13, 83, int64_t(scope)), .samples = 3});
      }
      const GenerateResult result = engine->Generate(request).value();
      std::vector<TrainGroup> groups;
      std::vector<float> recorded;
      numerics::NoiseCounters sampled;
      for (size_t g = 0; g < request.groups.size(); ++g) {
        TrainGroup group = {.group_index = request.groups[g].scope,
                            .prompt_ids = request.groups[g].prompt_ids};
        for (uint32_t s = 0; s < 3; ++s) {
          const Completion& completion = result.groups[g].completions[s];
          group.completions.push_back({s, completion.token_ids});
          recorded.insert(recorded.end(), completion.logprobs.begin(), completion.logprobs.end());
        }
        groups.push_back(std::move(group));
        sampled.Merge(result.groups[g].counters);
      }
      auto model = TrainModel::Create(parameters, {.threads = 3}).value();
      numerics::NoiseCounters trained;
      const TrainNoise noise = {.policy = &policy, .run_seed = 11};
      const LogProbs pass = model->Forward(groups, {.noise = noise}, &trained).value();
      EXPECT_EQ(ToVector(pass.logprobs.detach()), recorded) << policy.Describe();
      ASSERT_THAT(model->Backward(pass, Weights(pass.logprobs.numel()), &trained), IsOk());
      ASSERT_THAT(model->ApplyGradWeightError(noise, &trained), IsOk());
      EXPECT_THAT(numerics::CheckSeen(policy, sampled), IsOk()) << policy.Describe();
      EXPECT_THAT(numerics::CheckSeen(policy, trained), IsOk()) << policy.Describe();
      const numerics::NoiseRowId row = {numerics::Phase::kTrain, numerics::Direction::kForward, 1,
                                        Operator::kLoraB, TensorRole::kOutput};
      EXPECT_GT(trained.rows().at(row).stats.changed, 0u) << policy.Describe();
    }
  }
}

TEST(AdaptedEngines, AdaptersInSomeLayersAloneAreSampledTrainedAndSeen) {
  const Parameters parameters = Adapted(TinyConfig(), {"layers.1.mlp.gate", "layers.1.*.o"});
  const numerics::NoisePolicy policy =
      PolicyWith({.enabled = true, .error_scale = 0.1},
                 {"q", "k", "v", "o", "gate", "up", "down", "layers.1.lora_a"}, parameters);
  auto model = TrainModel::Create(parameters, {.threads = 2}).value();
  numerics::NoiseCounters counters;
  const TrainNoise noise = {.policy = &policy, .run_seed = 11};
  const LogProbs pass = model->Forward(Batch(), {.noise = noise}, &counters).value();
  ASSERT_THAT(model->Backward(pass, Weights(pass.logprobs.numel()), &counters), IsOk());
  ASSERT_THAT(model->ApplyGradWeightError(noise, &counters), IsOk());
  EXPECT_THAT(numerics::CheckSeen(policy, counters), IsOk());
}

TEST(AdaptedEngines, AnAdapterErrsUnderKeysOfItsOwn) {
  // lora_a of q and of k have equal inputs and here equal weights: with one site they would err
  // alike, and the two products would stay equal.
  Parameters parameters = Adapted(TinyConfig(), {"layers.0.*.q", "layers.0.*.k"});
  const numerics::NoisePolicy policy =
      PolicyWith({.enabled = true, .error_scale = 0.1}, {"lora_a"}, parameters);
  EXPECT_NE(numerics::AdapterSite(0, Operator::kLoraA, Operator::kQ, TensorRole::kOutput),
            numerics::AdapterSite(0, Operator::kLoraA, Operator::kK, TensorRole::kOutput));
  for (int op = 0; op < numerics::kOperatorCount; ++op) {
    for (const Operator adapted : {Operator::kQ, Operator::kDown}) {
      EXPECT_NE(numerics::AdapterSite(0, Operator::kLoraB, adapted, TensorRole::kOutput),
                numerics::Site(0, static_cast<Operator>(op), TensorRole::kOutput));
    }
  }
  EXPECT_GT(
      policy.Scale(numerics::Phase::kRollout, numerics::Direction::kForward, Operator::kLoraA, 0),
      0.0);
}

}  // namespace
}  // namespace temper::model
