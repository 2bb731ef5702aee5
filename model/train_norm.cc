// Operators without a matrix product: embedding, residual sum, RMSNorm (with AQN) and SwiGLU.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "model/train_context.h"

namespace temper::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements of an elementwise task.
constexpr int64_t kElementGrain = 16 * 1024;

PassHandle PassOf(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<TrainPass>(ctx->saved_data["pass"].toCapsule());
}

struct EmbedFunction : torch::autograd::Function<EmbedFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight,
                            const PassHandle& pass) {
    const int64_t width = weight.size(1);
    at::Tensor x = at::empty({pass->rows(), width}, weight.options());
    const float* ws = weight.const_data_ptr<float>();
    float* xs = x.mutable_data_ptr<float>();
    for (int64_t row = 0; row < pass->rows(); ++row) {
      std::copy_n(ws + pass->tokens[static_cast<size_t>(row)] * width, width, xs + row * width);
    }
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["vocab"] = weight.size(0);
    return x;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const PassHandle pass = PassOf(ctx);
    const at::Tensor g = gradients[0].contiguous();
    const int64_t width = g.size(1);
    at::Tensor gw = at::zeros({ctx->saved_data["vocab"].toInt(), width}, g.options());
    const float* gs = g.const_data_ptr<float>();
    float* gws = gw.mutable_data_ptr<float>();
    for (int64_t row = 0; row < pass->rows(); ++row) {
      pass->context->kernels.add(gws + pass->tokens[static_cast<size_t>(row)] * width,
                                 gs + row * width, width);
    }
    return {gw, at::Tensor()};
  }
};

struct AddFunction : torch::autograd::Function<AddFunction> {
  static at::Tensor forward(AutogradContext* /*ctx*/, const at::Tensor& a, const at::Tensor& b,
                            const PassHandle& pass) {
    at::Tensor sum = at::empty_like(a);
    const float* as = a.const_data_ptr<float>();
    const float* bs = b.const_data_ptr<float>();
    float* out = sum.mutable_data_ptr<float>();
    pass->context->threads.Split(a.numel(), kElementGrain, [&](int64_t begin, int64_t end, int) {
      std::copy(as + begin, as + end, out + begin);
      pass->context->kernels.add(out + begin, bs + begin, end - begin);
    });
    return sum;
  }

  static variable_list backward(AutogradContext* /*ctx*/, const variable_list& gradients) {
    return {gradients[0], gradients[0], at::Tensor()};
  }
};

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gamma,
                            int64_t aqn_norm, const PassHandle& pass) {
    const TrainContext& context = *pass->context;
    const int64_t rows = x.size(0), cols = x.size(1);
    at::Tensor y = at::empty({rows, cols}, x.options());
    at::Tensor inv_rms = at::empty({rows}, x.options());
    const float* xs = x.const_data_ptr<float>();
    const float* gs = Weight(gamma, aqn_norm, *pass);
    float* ys = y.mutable_data_ptr<float>();
    float* rs = inv_rms.mutable_data_ptr<float>();
    const auto eps = static_cast<float>(context.config.rms_norm_eps);
    pass->context->threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
      context.kernels.rms_norm(xs + begin * cols, end - begin, cols, cols, gs, eps,
                               ys + begin * cols, cols, rs + begin);
    });
    ctx->save_for_backward({x, gamma, inv_rms});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["aqn_norm"] = aqn_norm;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const PassHandle pass = PassOf(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor g = gradients[0].contiguous();
    const int64_t rows = g.size(0), cols = g.size(1);
    at::Tensor gx = at::empty_like(g);
    at::Tensor ggamma = at::zeros({cols}, g.options());
    const float* xs = saved[0].const_data_ptr<float>();
    const float* weight = Weight(saved[1], ctx->saved_data["aqn_norm"].toInt(), *pass);
    const float* rs = saved[2].const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* gxs = gx.mutable_data_ptr<float>();
    float* ggammas = ggamma.mutable_data_ptr<float>();
    const kernels::RowKernels& kernels = pass->context->kernels;
    pass->context->threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
      kernels.rms_norm_backward(xs + begin * cols, gs + begin * cols, weight, rs + begin,
                                end - begin, cols, gxs + begin * cols);
    });
    pass->context->threads.Split(cols, 48, [&](int64_t begin, int64_t end, int) {
      kernels.rms_norm_gamma(xs, gs, rs, rows, cols, begin, end, ggammas);
    });
    return {gx, ggamma, at::Tensor(), at::Tensor()};
  }

  // AQN adds a constant to gamma, so the gradient of gamma is that of what acted.
  static const float* Weight(const at::Tensor& gamma, int64_t aqn_norm, const TrainPass& pass) {
    return aqn_norm < 0 ? gamma.const_data_ptr<float>()
                        : pass.aqn_norms[static_cast<size_t>(aqn_norm)].data();
  }
};

struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            const PassHandle& pass) {
    at::Tensor y = at::empty_like(gate);
    const float* gs = gate.const_data_ptr<float>();
    const float* us = up.const_data_ptr<float>();
    float* ys = y.mutable_data_ptr<float>();
    pass->context->threads.Split(gate.numel(), kElementGrain, [&](int64_t begin, int64_t end, int) {
      pass->context->kernels.swiglu(gs + begin, us + begin, 1, end - begin, 0, ys + begin, 0);
    });
    ctx->save_for_backward({gate, up});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const PassHandle pass = PassOf(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor g = gradients[0].contiguous();
    at::Tensor ggate = at::empty_like(g);
    at::Tensor gup = at::empty_like(g);
    const float* gates = saved[0].const_data_ptr<float>();
    const float* ups = saved[1].const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* ggates = ggate.mutable_data_ptr<float>();
    float* gups = gup.mutable_data_ptr<float>();
    pass->context->threads.Split(g.numel(), kElementGrain, [&](int64_t begin, int64_t end, int) {
      pass->context->kernels.swiglu_backward(gates + begin, ups + begin, gs + begin, end - begin,
                                             ggates + begin, gups + begin);
    });
    return {ggate, gup, at::Tensor()};
  }
};

}  // namespace

at::Tensor EmbedRows(const at::Tensor& weight, const PassHandle& pass) {
  return EmbedFunction::apply(weight, pass);
}
at::Tensor AddRows(const at::Tensor& a, const at::Tensor& b, const PassHandle& pass) {
  return AddFunction::apply(a, b, pass);
}
at::Tensor NormRows(const at::Tensor& x, const at::Tensor& gamma, int64_t aqn_norm,
                    const PassHandle& pass) {
  return NormFunction::apply(x, gamma, aqn_norm, pass);
}
at::Tensor SwiGluRows(const at::Tensor& gate, const at::Tensor& up, const PassHandle& pass) {
  return SwiGluFunction::apply(gate, up, pass);
}

}  // namespace temper::model
