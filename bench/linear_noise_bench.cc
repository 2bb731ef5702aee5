// What 5 % error costs a pass: the seven linears of one layer of SmolLM2-135M, forward and backward
// over 2,048 tokens with the learner's own operators, without error, with exact and with fast
// draws; and the way of a framework, at::linear with y + randn_like(y) * y.abs() * s after every
// product. All 30 layers are alike, so the ratios are those of the model's linears.
// Run with --benchmark_enable_random_interleaving=true --benchmark_repetitions=7.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bench/machine.h"
#include "model/train_context.h"
#include "numerics/noise_policy.h"
#include "numerics/operator_error.h"

namespace temper {
namespace {

constexpr int kThreads = 2;
constexpr int64_t kTokens = 2048;
constexpr double kScale = 0.05;

struct Shape {
  numerics::Operator op;
  int64_t out;
  int64_t in;
};
constexpr Shape kLinears[] = {
    {numerics::Operator::kQ, 576, 576},     {numerics::Operator::kK, 192, 576},
    {numerics::Operator::kV, 192, 576},     {numerics::Operator::kO, 576, 576},
    {numerics::Operator::kGate, 1536, 576}, {numerics::Operator::kUp, 1536, 576},
    {numerics::Operator::kDown, 576, 1536}};

model::ModelConfig OneLayer() {
  model::ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 64;
  config.hidden_size = 576;
  config.num_layers = 1;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.intermediate_size = 1536;
  config.max_position_embeddings = 4096;
  return config;
}

numerics::NoisePolicy PolicyOf(numerics::GaussianDraw draw) {
  const numerics::NoiseSpec spec = {.enabled = true, .error_scale = kScale, .gaussian = draw};
  return numerics::NoisePolicy::Create(spec, {.num_layers = 1}).value();
}

struct Operands {
  at::Tensor x, weight, gradient;
};

std::vector<Operands> RandomOperands() {
  std::vector<Operands> all;
  for (const Shape& shape : kLinears) {
    all.push_back({.x = at::randn({kTokens, shape.in}),
                   .weight = at::randn({shape.out, shape.in}) * 0.03,
                   .gradient = at::randn({kTokens, shape.out})});
  }
  return all;
}

// policy: null for none.
void Ours(benchmark::State& state, const numerics::NoisePolicy* policy) {
  at::set_num_threads(kThreads);
  std::vector<Operands> operands = RandomOperands();
  model::TrainContext context(OneLayer(), {.threads = kThreads});
  for (Operands& o : operands) {
    const at::Tensor transposed = o.weight.t().contiguous();
    context.linears.push_back(
        {.forward = numerics::Pack(o.weight.data_ptr<float>(), o.weight.size(0), o.weight.size(1)),
         .transposed =
             numerics::Pack(transposed.data_ptr<float>(), o.weight.size(1), o.weight.size(0))});
    o.x.requires_grad_(true);
    o.weight.requires_grad_(true);
  }
  auto pass = c10::make_intrusive<model::TrainPass>();
  pass->context = &context;
  pass->forward_policy = policy;
  pass->backward_policy = policy;
  pass->forward_counts.assign(kThreads, model::GroupCounts(numerics::Phase::kTrain, 1));
  for (uint32_t r = 0; r < kTokens; ++r) {
    pass->forward_keys.push_back({.key = 3, .position = r, .lane = 1});
    pass->gradient_keys.push_back({.key = 4, .position = r, .lane = 1});
  }
  for (auto _ : state) {
    for (size_t i = 0; i < operands.size(); ++i) {
      const Operands& o = operands[i];
      const model::LinearSite site = {
          .op = kLinears[i].op, .layer = 0, .parameter = static_cast<int64_t>(i)};
      const at::Tensor y = model::LinearRows(o.x, o.weight, {}, site, pass);
      std::vector<at::Tensor> gradients = torch::autograd::grad({y}, {o.x, o.weight}, {o.gradient});
      benchmark::DoNotOptimize(gradients[0].data_ptr());
      if (policy == nullptr) continue;
      numerics::ErrorStats stats;
      numerics::ApplyErrorToWeight(policy->ErrorAt(kScale), gradients[1].data_ptr<float>(),
                                   kLinears[i].out, kLinears[i].in, 5, 9, &stats);
    }
  }
}

at::Tensor Noisy(const at::Tensor& y, bool noisy) {
  return noisy ? y + at::randn_like(y) * y.abs() * kScale : y;
}

void Aten(benchmark::State& state, bool noisy) {
  at::set_num_threads(kThreads);
  const std::vector<Operands> operands = RandomOperands();
  for (auto _ : state) {
    for (const Operands& o : operands) {
      const at::Tensor y = Noisy(at::linear(o.x, o.weight), noisy);
      const at::Tensor gx = Noisy(at::mm(o.gradient, o.weight), noisy);
      const at::Tensor gw = Noisy(at::mm(o.gradient.t(), o.x), noisy);
      benchmark::DoNotOptimize(y.data_ptr());
      benchmark::DoNotOptimize(gx.data_ptr());
      benchmark::DoNotOptimize(gw.data_ptr());
    }
  }
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  temper::bench::AddMachineContext(temper::kThreads);
  const auto exact = temper::PolicyOf(temper::numerics::GaussianDraw::kExact);
  const auto fast = temper::PolicyOf(temper::numerics::GaussianDraw::kFast);
  const auto add = [](const char* name, auto function, auto argument) {
    benchmark::RegisterBenchmark(name, function, argument)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime()
        ->MeasureProcessCPUTime();
  };
  using temper::numerics::NoisePolicy;
  add("linears/none", temper::Ours, static_cast<const NoisePolicy*>(nullptr));
  add("linears/exact", temper::Ours, &exact);
  add("linears/fast", temper::Ours, &fast);
  add("linears/aten_none", temper::Aten, false);
  add("linears/aten_five_operations", temper::Aten, true);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
