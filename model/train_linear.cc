// The perturbed linear operator: y = e(x W^T) + b.
//   g_x = error((g D) W), g_W = (g D)^T x, g_b = sum of g.
// D = de/dy where the error is linear (1 + s n of relative Gaussian, 1 + s of the relative bias);
// it is 1 for every other type, and for all with `straight_through`. The error of g_W acts later,
// on its sum over the batch (TrainModel::ApplyGradWeightError).

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "model/train_context.h"
#include "numerics/operator_error.h"

namespace temper::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Output features whose weight gradient one task sums: whole tiles on every instruction set.
constexpr int64_t kFeatureGrain = 24;

// g D for the rows begin .. end - 1.
void MultiplyByFactor(const TrainPass& pass, const LinearSite& site, int64_t begin, int64_t rows,
                      int64_t cols, const numerics::OperatorError& factor, float* g) {
  numerics::ApplyError(
      factor, g, rows, cols, cols,
      std::span(pass.forward_keys).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
      numerics::Site(site.layer, site.op, numerics::TensorRole::kOutput), nullptr);
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const LinearSite& site,
                            const PassHandle& pass) {
    TrainContext& context = *pass->context;
    const int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
    at::Tensor y = at::empty({rows, out}, x.options());
    const float* xs = x.const_data_ptr<float>();
    const float* b = bias.has_value() ? bias->const_data_ptr<float>() : nullptr;
    float* ys = y.mutable_data_ptr<float>();
    const PackedLinear& packed = context.linears[static_cast<size_t>(site.parameter)];
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      float* part = ys + begin * out;
      numerics::Gemm(xs + begin * in, end - begin, in, packed.forward, part, out);
      pass->ForwardError(part, begin, end - begin, out, pass->forward_keys, site.op, site.layer,
                         worker);
      if (b != nullptr) context.kernels.add_bias(part, end - begin, out, out, b);
    });
    ctx->save_for_backward({x});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["op"] = static_cast<int64_t>(site.op);
    ctx->saved_data["layer"] = static_cast<int64_t>(site.layer);
    ctx->saved_data["parameter"] = site.parameter;
    ctx->saved_data["bias"] = bias.has_value();
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto pass =
        c10::static_intrusive_pointer_cast<TrainPass>(ctx->saved_data["pass"].toCapsule());
    const LinearSite site = {.op = static_cast<numerics::Operator>(ctx->saved_data["op"].toInt()),
                             .layer = static_cast<int>(ctx->saved_data["layer"].toInt()),
                             .parameter = ctx->saved_data["parameter"].toInt()};
    const at::Tensor x = ctx->get_saved_variables()[0];
    const at::Tensor g = gradients[0].contiguous();
    at::Tensor bias_gradient;
    if (ctx->saved_data["bias"].toBool()) {
      bias_gradient = at::zeros({g.size(1)}, g.options());
      pass->context->kernels.column_sums(g.const_data_ptr<float>(), g.size(0), g.size(1),
                                         bias_gradient.mutable_data_ptr<float>());
    }
    at::Tensor scaled = g;
    at::Tensor gx = InputGradient(*pass, site, x.size(1), &scaled);
    return {gx, WeightGradient(*pass, x, scaled), bias_gradient, at::Tensor(), at::Tensor()};
  }

  // Replaces *g by g D where D is not 1.
  static at::Tensor InputGradient(TrainPass& pass, const LinearSite& site, int64_t in,
                                  at::Tensor* g) {
    TrainContext& context = *pass.context;
    const int64_t rows = g->size(0), out = g->size(1);
    const numerics::OperatorError factor = pass.GradientFactor(site.op, site.layer);
    const float* gs = g->const_data_ptr<float>();
    at::Tensor scaled = factor.acts() ? at::empty({rows, out}, g->options()) : *g;
    float* ss = factor.acts() ? scaled.mutable_data_ptr<float>() : nullptr;
    at::Tensor gx = at::empty({rows, in}, g->options());
    float* gxs = gx.mutable_data_ptr<float>();
    const PackedLinear& packed = context.linears[static_cast<size_t>(site.parameter)];
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      const float* from = gs + begin * out;
      if (ss != nullptr) {
        std::copy(from, gs + end * out, ss + begin * out);
        MultiplyByFactor(pass, site, begin, end - begin, out, factor, ss + begin * out);
        from = ss + begin * out;
      }
      numerics::Gemm(from, end - begin, out, packed.transposed, gxs + begin * in, in);
      pass.GradientError(gxs + begin * in, begin, end - begin, in, pass.gradient_keys, site.op,
                         site.layer, worker);
    });
    *g = scaled;
    return gx;
  }

  static at::Tensor WeightGradient(TrainPass& pass, const at::Tensor& x, const at::Tensor& g) {
    const int64_t rows = x.size(0), in = x.size(1), out = g.size(1);
    at::Tensor gw = at::zeros({out, in}, g.options());
    const float* xs = x.const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* gws = gw.mutable_data_ptr<float>();
    pass.context->threads.Split(out, kFeatureGrain, [&](int64_t begin, int64_t end, int) {
      pass.context->kernels.grad_weight(gs, out, xs, in, rows, begin, end, in, gws, in);
    });
    return gw;
  }
};

}  // namespace

at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const LinearSite& site, const PassHandle& pass) {
  const std::optional<at::Tensor> bias_if_any =
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  return LinearFunction::apply(x, weight, bias_if_any, site, pass);
}

}  // namespace temper::model
