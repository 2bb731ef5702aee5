// The adapter's part of a linear, as an operator on the base's result:
//   t = e_a(x A^T),  u = e_b(t B^T),  y' = y + s u,  s = alpha / r
// With g = dL/dy' and h = s g D_b:  g_y = g,  g_B = h^T t,  g_t = error(h B),
//                                   g_A = (g_t D_a)^T x,  g_x = error((g_t D_a) A)
// D and the errors are those of the operators lora_a and lora_b: 1 and none unless they are named.
// The adapter sees the clean x, and g without the D of the base product.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "model/adapter_branch.h"
#include "model/train_context.h"
#include "numerics/operator_error.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Operator;
using numerics::TensorRole;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Output features whose weight gradient one task sums, as in train_linear.cc.
constexpr int64_t kFeatureGrain = 24;

// values D, for rows begin .. begin + rows - 1 of the pass, where D is not 1.
void MultiplyByFactor(const TrainPass& pass, Operator op, const LoraModule& module, int64_t begin,
                      int64_t rows, int64_t cols, float* values) {
  const numerics::OperatorError factor = pass.GradientFactor(op, module.layer);
  if (!factor.acts()) return;
  numerics::ApplyError(
      factor, values, rows, cols, cols,
      std::span(pass.forward_keys).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
      numerics::AdapterSite(module.layer, op, module.op, TensorRole::kOutput), nullptr);
}

// g^T x, [g's columns, x's columns].
at::Tensor WeightGradient(TrainPass& pass, const at::Tensor& g, const at::Tensor& x) {
  const int64_t rows = x.size(0), in = x.size(1), out = g.size(1);
  at::Tensor gw = at::zeros({out, in}, g.options());
  const float* gs = g.const_data_ptr<float>();
  const float* xs = x.const_data_ptr<float>();
  float* gws = gw.mutable_data_ptr<float>();
  pass.context->threads.Split(out, kFeatureGrain, [&](int64_t begin, int64_t end, int) {
    pass.context->kernels.grad_weight(gs, out, xs, in, rows, begin, end, in, gws, in);
  });
  return gw;
}

struct AdapterFunction : torch::autograd::Function<AdapterFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& y, const at::Tensor& x,
                            const at::Tensor& /*a*/, const at::Tensor& /*b*/, int64_t index,
                            const PassHandle& pass) {
    TrainContext& context = *pass->context;
    const PackedAdapter& adapter = context.adapters[static_cast<size_t>(index)];
    const int64_t rows = x.size(0), in = x.size(1), out = y.size(1);
    const int64_t rank = adapter.a.forward.out_features();
    at::Tensor adapted = at::empty({rows, out}, y.options());
    at::Tensor t = at::empty({rows, rank}, y.options());
    const float* xs = x.const_data_ptr<float>();
    const float* ys = y.const_data_ptr<float>();
    float* ts = t.mutable_data_ptr<float>();
    float* sums = adapted.mutable_data_ptr<float>();
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      std::vector<float> u(static_cast<size_t>((end - begin) * out));
      std::copy(ys + begin * out, ys + end * out, sums + begin * out);
      AddAdapterBranch({.a = &adapter.a.forward,
                        .b = &adapter.b.forward,
                        .scale = adapter.scale,
                        .x = xs + begin * in,
                        .x_stride = in,
                        .rows = end - begin,
                        .t = ts + begin * rank,
                        .u = u.data(),
                        .y = sums + begin * out,
                        .y_stride = out},
                       context.kernels, [&](float* values, int64_t cols, Operator op) {
                         pass->AdapterError(values, begin, end - begin, cols, Direction::kForward,
                                            op, adapter.module, worker);
                       });
    });
    ctx->save_for_backward({x, t});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["index"] = index;
    return adapted;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto pass =
        c10::static_intrusive_pointer_cast<TrainPass>(ctx->saved_data["pass"].toCapsule());
    TrainContext& context = *pass->context;
    const PackedAdapter& adapter =
        context.adapters[static_cast<size_t>(ctx->saved_data["index"].toInt())];
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &t = saved[1];
    const at::Tensor g = gradients[0].contiguous();
    const int64_t rows = x.size(0), in = x.size(1), out = g.size(1), rank = t.size(1);
    at::Tensor h = at::empty({rows, out}, g.options());
    at::Tensor gt = at::empty({rows, rank}, g.options());
    at::Tensor gx = at::empty({rows, in}, g.options());
    const float* gs = g.const_data_ptr<float>();
    float* hs = h.mutable_data_ptr<float>();
    float* gts = gt.mutable_data_ptr<float>();
    float* gxs = gx.mutable_data_ptr<float>();
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      const int64_t count = end - begin;
      const auto err = [&](float* values, int64_t cols, Operator op) {
        pass->AdapterError(values, begin, count, cols, Direction::kBackward, op, adapter.module,
                           worker);
      };
      float* own_h = hs + begin * out;
      float* own_gt = gts + begin * rank;
      float* own_gx = gxs + begin * in;
      context.kernels.scale(gs + begin * out, count * out, adapter.scale, own_h);
      MultiplyByFactor(*pass, Operator::kLoraB, adapter.module, begin, count, out, own_h);
      numerics::Gemm(own_h, count, out, adapter.b.transposed, own_gt, rank);
      err(own_gt, rank, Operator::kLoraB);
      MultiplyByFactor(*pass, Operator::kLoraA, adapter.module, begin, count, rank, own_gt);
      numerics::Gemm(own_gt, count, rank, adapter.a.transposed, own_gx, in);
      err(own_gx, in, Operator::kLoraA);
    });
    return {
        g,           gx, WeightGradient(*pass, gt, x), WeightGradient(*pass, h, t), at::Tensor(),
        at::Tensor()};
  }
};

}  // namespace

void TrainPass::AdapterError(float* values, int64_t first, int64_t rows, int64_t cols,
                             Direction direction, Operator op, const LoraModule& module,
                             int worker) {
  const bool forward = direction == Direction::kForward;
  const auto slot = static_cast<size_t>(worker);
  const std::vector<numerics::RowKey>& keys = forward ? forward_keys : gradient_keys;
  const RowSegment segment = {
      .begin = 0,
      .end = static_cast<int64_t>(keys.size()),
      .counts = forward ? &forward_counts[slot] : &context->backward_counts[slot]};
  const RowNoise noise = {.policy = forward ? forward_policy : backward_policy,
                          .phase = forward ? phase : numerics::Phase::kTrain,
                          .keys = keys,
                          .segments = {&segment, 1}};
  const TensorRole role = forward ? TensorRole::kOutput : TensorRole::kGradInput;
  ApplyRowErrorAt(numerics::AdapterSite(module.layer, op, module.op, role), values, first, rows,
                  cols, cols, noise, keys, direction, op, module.layer);
}

at::Tensor AdaptRows(const at::Tensor& y, const at::Tensor& x, const at::Tensor& a,
                     const at::Tensor& b, int64_t index, const PassHandle& pass) {
  return AdapterFunction::apply(y, x, a, b, index, pass);
}

void ApplyAdapterGradError(const PackedAdapter& adapter, const at::Tensor& a, const at::Tensor& b,
                           const numerics::NoisePolicy& policy, uint64_t key,
                           numerics::NoiseCounters* counters) {
  const LoraModule& module = adapter.module;
  for (const auto& [op, matrix] : {std::pair{Operator::kLoraA, &a}, {Operator::kLoraB, &b}}) {
    const at::Tensor& gradient = matrix->grad();
    if (!gradient.defined()) continue;
    const numerics::OperatorError error =
        policy.Error(numerics::Phase::kTrain, Direction::kBackward, op, module.layer);
    numerics::ErrorStats stats;
    if (error.acts()) {
      numerics::ApplyErrorToWeight(
          error, gradient.data_ptr<float>(), gradient.size(0), gradient.size(1), key,
          numerics::AdapterSite(module.layer, op, module.op, TensorRole::kGradWeight), &stats);
    }
    if (counters == nullptr) continue;
    counters->Count({.phase = numerics::Phase::kTrain,
                     .direction = Direction::kBackward,
                     .layer = module.layer,
                     .op = op,
                     .role = TensorRole::kGradWeight},
                    stats);
  }
}

}  // namespace temper::model
