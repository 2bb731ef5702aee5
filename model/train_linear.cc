// The perturbed linear operator: y = E(e(x^ W^^T)) + b, where ^ and E are injections.
//   g_x = error(((g D) W^) D_x), g_W = ((g D)^T x^) D_W, g_b = sum of g.
// D = d(E e)/dy, D_x and D_W those of the operands' errors: 1 + s n of relative Gaussian, 1 + s of
// the relative bias; 1 for every other type, and for e with `straight_through`. x^ is made again in
// the backward pass rather than kept. The error of g_W acts later, on its sum over the batch
// (TrainModel::ApplyGradWeightError).

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "model/train_context.h"
#include "numerics/operator_error.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::TensorRole;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Output features whose weight gradient one task sums: whole tiles on every instruction set.
constexpr int64_t kFeatureGrain = 24;

// Multiplies rows begin .. begin + rows - 1 by the D of `factor`, whose draws have these keys.
void MultiplyByFactor(const numerics::OperatorError& factor, const LinearSite& site,
                      numerics::TensorRole role, const std::vector<numerics::RowKey>& keys,
                      int64_t begin, int64_t rows, int64_t cols, float* g) {
  if (!factor.acts()) return;
  numerics::ApplyError(
      factor, g, rows, cols, cols,
      std::span(keys).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
      numerics::Site(site.layer, site.op, role), nullptr);
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
    const PackedLinear& packed = pass->Weights(site);
    const bool x_errs = pass->Injected(TensorRole::kInputOperand, site.op, site.layer).acts();
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      float* part = ys + begin * out;
      std::vector<float> buffer(x_errs ? static_cast<size_t>((end - begin) * in) : 0);
      const float* operand = pass->Operand(xs + begin * in, begin, end - begin, in, pass->keys(),
                                           site, Direction::kForward, worker, buffer.data());
      numerics::Gemm(operand, end - begin, in, packed.forward, part, out);
      pass->ForwardError(part, begin, end - begin, out, pass->keys(), site.op, site.layer, worker);
      if (b != nullptr) context.kernels.add_bias(part, end - begin, out, out, b);
    });
    ctx->save_for_backward({x});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["op"] = static_cast<int64_t>(site.op);
    ctx->saved_data["layer"] = static_cast<int64_t>(site.layer);
    ctx->saved_data["parameter"] = site.parameter;
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["trained"] = weight.requires_grad();
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
    const bool trained = ctx->saved_data["trained"].toBool();  // with adapters the base is not
    at::Tensor bias_gradient;
    if (trained && ctx->saved_data["bias"].toBool()) {
      bias_gradient = at::zeros({g.size(1)}, g.options());
      pass->context->kernels.column_sums(g.const_data_ptr<float>(), g.size(0), g.size(1),
                                         bias_gradient.mutable_data_ptr<float>());
    }
    at::Tensor scaled = g, operand = x;
    at::Tensor gx = InputGradient(*pass, site, &scaled, &operand);
    return {gx, trained ? WeightGradient(*pass, site, operand, scaled) : at::Tensor(),
            bias_gradient, at::Tensor(), at::Tensor()};
  }

  // Replaces *g by g D where D is not 1, and *x by x^ where it errs.
  static at::Tensor InputGradient(TrainPass& pass, const LinearSite& site, at::Tensor* g,
                                  at::Tensor* x) {
    TrainContext& context = *pass.context;
    const int64_t rows = g->size(0), out = g->size(1), in = x->size(1);
    const auto injected = [&](TensorRole role) -> const numerics::TensorError& {
      return pass.Injected(role, site.op, site.layer);
    };
    const numerics::OperatorError factor = pass.GradientFactor(site.op, site.layer);
    const numerics::OperatorError y_factor = injected(TensorRole::kInjectedOutput).GradientFactor();
    const numerics::OperatorError x_factor = injected(TensorRole::kInputOperand).GradientFactor();
    const bool scales = factor.acts() || y_factor.acts();
    const bool x_errs = injected(TensorRole::kInputOperand).acts();
    const float* gs = g->const_data_ptr<float>();
    const float* xs = x->const_data_ptr<float>();
    at::Tensor scaled = scales ? at::empty({rows, out}, g->options()) : *g;
    at::Tensor operand = x_errs ? at::empty({rows, in}, g->options()) : *x;
    float* ss = scales ? scaled.mutable_data_ptr<float>() : nullptr;
    float* operands = x_errs ? operand.mutable_data_ptr<float>() : nullptr;
    at::Tensor gx = at::empty({rows, in}, g->options());
    float* gxs = gx.mutable_data_ptr<float>();
    const PackedLinear& packed = pass.Weights(site);
    context.threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int worker) {
      const float* from = gs + begin * out;
      if (ss != nullptr) {
        std::copy(from, gs + end * out, ss + begin * out);
        MultiplyByFactor(y_factor, site, TensorRole::kInjectedOutput, pass.injection_keys, begin,
                         end - begin, out, ss + begin * out);
        MultiplyByFactor(factor, site, TensorRole::kOutput, pass.forward_keys, begin, end - begin,
                         out, ss + begin * out);
        from = ss + begin * out;
      }
      pass.Operand(xs + begin * in, begin, end - begin, in, pass.keys(), site, Direction::kBackward,
                   worker, x_errs ? operands + begin * in : nullptr);
      numerics::Gemm(from, end - begin, out, packed.transposed, gxs + begin * in, in);
      MultiplyByFactor(x_factor, site, TensorRole::kInputOperand, pass.injection_keys, begin,
                       end - begin, in, gxs + begin * in);
      pass.GradientError(gxs + begin * in, begin, end - begin, in, pass.gradient_keys, site.op,
                         site.layer, worker);
    });
    *g = scaled;
    *x = operand;
    return gx;
  }

  static at::Tensor WeightGradient(TrainPass& pass, const LinearSite& site, const at::Tensor& x,
                                   const at::Tensor& g) {
    const int64_t rows = x.size(0), in = x.size(1), out = g.size(1);
    at::Tensor gw = at::zeros({out, in}, g.options());
    const float* xs = x.const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* gws = gw.mutable_data_ptr<float>();
    pass.context->threads.Split(out, kFeatureGrain, [&](int64_t begin, int64_t end, int) {
      pass.context->kernels.grad_weight(gs, out, xs, in, rows, begin, end, in, gws, in);
    });
    pass.MultiplyByWeightFactor(site, gws, out, in);
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
