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

// The weight of a norm for every row of a pass: one draw after the other, or the clean one for all.
class RowWeights {
 public:
  // x_rows: a multiple of the pass's rows, where heads are normed.
  RowWeights(const at::Tensor& gamma, const NormSite& site, int64_t x_rows, const TrainPass& pass)
      : clean_(gamma.const_data_ptr<float>()),
        slot_(NormSlot(site.op, site.layer, static_cast<int>(pass.context->config.num_layers))),
        vectors_(x_rows / pass.rows()),
        pass_(pass) {}

  // Calls f(first, last + 1, weight) for the runs of one draw in rows begin .. end - 1 of x.
  template <typename F>
  void ForEachRun(int64_t begin, int64_t end, F f) const {
    if (pass_.aqn_runs.empty()) return f(begin, end, clean_);
    for (const TrainPass::AqnRun& run : pass_.aqn_runs) {
      const int64_t last = std::min(run.end * vectors_, end);
      if (begin < last) {
        f(begin, last, run.draw.Weight(slot_, clean_));
        begin = last;
      }
    }
  }

  // Counts the norm once per row of the pass.
  void Count(const NormSite& site, GroupCounts* counts) const {
    int64_t begin = 0;
    for (const TrainPass::AqnRun& run : pass_.aqn_runs) {
      CountNormRows(counts, run.end - begin, site.op, site.layer,
                    run.draw.norms[slot_].perturbation);
      begin = run.end;
    }
    if (begin < pass_.rows()) CountNormRows(counts, pass_.rows() - begin, site.op, site.layer, {});
  }

 private:
  const float* const clean_;
  const size_t slot_;
  const int64_t vectors_;
  const TrainPass& pass_;
};

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& gamma,
                            int64_t op, int64_t layer, const PassHandle& pass) {
    const TrainContext& context = *pass->context;
    const int64_t rows = x.size(0), cols = x.size(1);
    at::Tensor y = at::empty({rows, cols}, x.options());
    at::Tensor inv_rms = at::empty({rows}, x.options());
    const float* xs = x.const_data_ptr<float>();
    const NormSite site = {static_cast<numerics::Operator>(op), static_cast<int>(layer)};
    const RowWeights weights(gamma, site, rows, *pass);
    float* ys = y.mutable_data_ptr<float>();
    float* rs = inv_rms.mutable_data_ptr<float>();
    const auto eps = static_cast<float>(context.config.rms_norm_eps);
    pass->context->threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
      weights.ForEachRun(begin, end, [&](int64_t first, int64_t last, const float* gs) {
        context.kernels.rms_norm(xs + first * cols, last - first, cols, cols, gs, eps,
                                 ys + first * cols, cols, rs + first);
      });
    });
    weights.Count(site, &pass->forward_counts.front());
    ctx->save_for_backward({x, gamma, inv_rms});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["op"] = op;
    ctx->saved_data["layer"] = layer;
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
    const NormSite site = {static_cast<numerics::Operator>(ctx->saved_data["op"].toInt()),
                           static_cast<int>(ctx->saved_data["layer"].toInt())};
    const RowWeights weights(saved[1], site, rows, *pass);
    const float* rs = saved[2].const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* gxs = gx.mutable_data_ptr<float>();
    float* ggammas = ggamma.mutable_data_ptr<float>();
    const kernels::RowKernels& kernels = pass->context->kernels;
    pass->context->threads.Split(rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
      weights.ForEachRun(begin, end, [&](int64_t first, int64_t last, const float* weight) {
        kernels.rms_norm_backward(xs + first * cols, gs + first * cols, weight, rs + first,
                                  last - first, cols, gxs + first * cols);
      });
    });
    pass->context->threads.Split(cols, 48, [&](int64_t begin, int64_t end, int) {
      kernels.rms_norm_gamma(xs, gs, rs, rows, cols, begin, end, ggammas);
    });
    // AQN adds a constant to gamma, so the gradient of gamma is that of what acted.
    return {gx, ggamma, at::Tensor(), at::Tensor(), at::Tensor()};
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
at::Tensor NormRows(const at::Tensor& x, const at::Tensor& gamma, const NormSite& site,
                    const PassHandle& pass) {
  return NormFunction::apply(x, gamma, static_cast<int64_t>(site.op),
                             static_cast<int64_t>(site.layer), pass);
}
at::Tensor SwiGluRows(const at::Tensor& gate, const at::Tensor& up, const PassHandle& pass) {
  return SwiGluFunction::apply(gate, up, pass);
}

}  // namespace temper::model
