// lm_head, log-softmax and gather, forward and backward in chunks of `head_rows` rows, so that the
// logits of all tokens never exist. The backward pass computes the logits of a chunk again.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "model/train_context.h"
#include "numerics/operator_error.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Operator;
using numerics::TensorRole;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr Operator kOp = Operator::kLmHead;
constexpr int kLayer = numerics::kNoLayer;
// Rows of a chunk that one task computes, and vocabulary entries whose weight gradient it sums.
constexpr int64_t kHeadGrain = 32;
constexpr int64_t kVocabularyGrain = 48;

// True where the error of g_x is not linear. It acts on the whole gradient of a hidden row then,
// and the last row of a prompt gets a part from the first token of every completion.
bool ErrsOnSum(const TrainPass& pass) {
  const numerics::OperatorError error = pass.InputGradientError(kOp, kLayer);
  return error.acts() && !error.linear();
}

// The error of g_x on the rows of ghidden [rows of the pass, hidden] that predict a token.
void PerturbSum(TrainPass& pass, float* ghidden) {
  const int64_t width = pass.context->config.hidden_size;
  std::vector<int64_t> rows;
  for (const HeadRow& head : pass.head_rows) rows.push_back(head.row);
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  const auto perturb = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = rows[static_cast<size_t>(i)];
      pass.GradientError(ghidden + row * width, row, 1, width, pass.gradient_keys, kOp, kLayer,
                         worker);
    }
  };
  pass.context->threads.Split(static_cast<int64_t>(rows.size()), kHeadGrain, perturb);
}

// A run of head rows: their inputs, logits and keys, in the context's scratch memory.
class HeadChunk {
 public:
  HeadChunk(TrainPass& pass, const float* hidden, int64_t first, int64_t parameter)
      : pass_(pass),
        context_(*pass.context),
        site_{kOp, kLayer, parameter},
        packed_(pass.Weights(site_)),
        first_(first),
        rows_(std::min(context_.options.head_rows,
                       static_cast<int64_t>(pass.head_rows.size()) - first)),
        width_(context_.config.hidden_size),
        vocab_(context_.config.vocab_size) {
    for (int64_t i = 0; i < rows_; ++i) {
      const auto row = static_cast<size_t>(Head(i).row);
      std::copy_n(hidden + Head(i).row * width_, width_, context_.head_inputs.data() + i * width_);
      forward_keys_.push_back(pass.forward_keys[row]);
      gradient_keys_.push_back(pass.gradient_keys[row]);
      if (pass.injection != nullptr) injection_keys_.push_back(pass.injection_keys[row]);
    }
  }

  // Calls body(row of the chunk, its logits, worker) for every row. The backward pass repeats the
  // logits of the forward pass and counts what it reads as its own.
  template <typename Body>
  void ForEachLogits(Direction direction, const Body& body) {
    context_.threads.Split(rows_, kHeadGrain, [&](int64_t begin, int64_t end, int worker) {
      float* logits = context_.head_logits.data() + begin * vocab_;
      float* inputs = context_.head_inputs.data() + begin * width_;
      TakeOperand(inputs, begin, end - begin, direction, worker);
      numerics::Gemm(inputs, end - begin, width_, packed_.forward, logits, vocab_);
      if (direction == Direction::kForward) {
        pass_.ForwardError(logits, begin, end - begin, vocab_, keys(), kOp, kLayer, worker);
      } else {
        RepeatError(logits, begin, end - begin, ForwardError(), TensorRole::kOutput);
        RepeatInjection(logits, begin, end - begin);
      }
      for (int64_t i = begin; i < end; ++i) {
        body(i, context_.head_logits.data() + i * vocab_, worker);
      }
    });
  }

  // The logits hold their gradient: adds g_x to ghidden [rows of the pass, width] and g_W to gw.
  // err: g_x gets its error here, row by row. gw: null where the weight is frozen.
  void Backward(bool err, float* ghidden, float* gw) {
    float* g = context_.head_logits.data();
    std::vector<float> gx(static_cast<size_t>(rows_ * width_));
    const numerics::OperatorError factor = pass_.GradientFactor(kOp, kLayer);
    const numerics::OperatorError y_factor =
        pass_.Injected(TensorRole::kInjectedOutput, kOp, kLayer).GradientFactor();
    const numerics::OperatorError x_factor =
        pass_.Injected(TensorRole::kInputOperand, kOp, kLayer).GradientFactor();
    context_.threads.Split(rows_, kHeadGrain, [&](int64_t begin, int64_t end, int worker) {
      float* part = gx.data() + begin * width_;
      RepeatError(g + begin * vocab_, begin, end - begin, y_factor, TensorRole::kInjectedOutput);
      RepeatError(g + begin * vocab_, begin, end - begin, factor, TensorRole::kOutput);
      numerics::Gemm(g + begin * vocab_, end - begin, vocab_, packed_.transposed, part, width_);
      Multiply(part, begin, end - begin, width_, x_factor, TensorRole::kInputOperand);
      if (err) {
        pass_.GradientError(part, begin, end - begin, width_, gradient_keys_, kOp, kLayer, worker);
      }
    });
    for (int64_t i = 0; i < rows_; ++i) {
      context_.kernels.add(ghidden + Head(i).row * width_, gx.data() + i * width_, width_);
    }
    if (gw == nullptr) return;
    context_.threads.Split(vocab_, kVocabularyGrain, [&](int64_t begin, int64_t end, int) {
      context_.kernels.grad_weight(g, vocab_, context_.head_inputs.data(), width_, rows_, begin,
                                   end, width_, gw, width_);
    });
  }

  int64_t rows() const { return rows_; }
  const HeadRow& Head(int64_t i) const { return pass_.head_rows[static_cast<size_t>(first_ + i)]; }

 private:
  numerics::OperatorError ForwardError() const {
    return pass_.forward_policy == nullptr
               ? numerics::OperatorError()
               : pass_.forward_policy->Error(pass_.phase, numerics::Direction::kForward, kOp,
                                             kLayer);
  }

  PassKeys keys() const { return {.forward = forward_keys_, .injection = injection_keys_}; }

  // Replaces rows of the chunk's inputs by x^.
  void TakeOperand(float* inputs, int64_t begin, int64_t rows, Direction direction, int worker) {
    const bool errs = pass_.Injected(TensorRole::kInputOperand, kOp, kLayer).acts();
    std::vector<float> buffer(errs ? static_cast<size_t>(rows * width_) : 0);
    pass_.Operand(inputs, begin, rows, width_, keys(), site_, direction, worker, buffer.data());
    std::copy(buffer.begin(), buffer.end(), inputs);
  }

  // Perturbs under the forward's draws without counting.
  void Multiply(float* y, int64_t begin, int64_t rows, int64_t cols,
                const numerics::OperatorError& error, TensorRole role) const {
    if (!error.acts()) return;
    const auto& keys = role == TensorRole::kOutput ? forward_keys_ : injection_keys_;
    numerics::ApplyError(
        error, y, rows, cols, cols,
        std::span(keys).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
        numerics::Site(kLayer, kOp, role), nullptr);
  }
  void RepeatError(float* y, int64_t begin, int64_t rows, const numerics::OperatorError& error,
                   TensorRole role) const {
    Multiply(y, begin, rows, vocab_, error, role);
  }

  void RepeatInjection(float* y, int64_t begin, int64_t rows) const {
    const numerics::TensorError& error = pass_.Injected(TensorRole::kInjectedOutput, kOp, kLayer);
    if (!error.acts()) return;
    const std::vector<float> before(y, y + rows * vocab_);
    error.PerturbRows(
        before.data(), rows, vocab_, vocab_, y, vocab_,
        std::span(injection_keys_).subspan(static_cast<size_t>(begin), static_cast<size_t>(rows)),
        numerics::Site(kLayer, kOp, TensorRole::kInjectedOutput), nullptr);
  }

  TrainPass& pass_;
  TrainContext& context_;
  const LinearSite site_;
  const PackedLinear& packed_;
  int64_t first_, rows_, width_, vocab_;
  std::vector<numerics::RowKey> forward_keys_, gradient_keys_, injection_keys_;
};

struct HeadFunction : torch::autograd::Function<HeadFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden,
                               const at::Tensor& weight, int64_t parameter, bool tied,
                               const PassHandle& pass) {
    TrainContext& context = *pass->context;
    const auto tokens = static_cast<int64_t>(pass->head_rows.size());
    at::Tensor logprobs = at::empty({tokens}, hidden.options());
    at::Tensor entropy = at::empty({tokens}, hidden.options());
    const float* hs = hidden.const_data_ptr<float>();
    float* ps = logprobs.mutable_data_ptr<float>();
    float* es = entropy.mutable_data_ptr<float>();
    const float inv_t = pass->inv_temperature;
    const int64_t vocab = weight.size(0);
    for (int64_t first = 0; first < tokens; first += context.options.head_rows) {
      HeadChunk chunk(*pass, hs, first, parameter);
      chunk.ForEachLogits(Direction::kForward, [&](int64_t i, const float* logits, int worker) {
        float* weights = context.vocabulary[static_cast<size_t>(worker)].data();
        const RowSoftmax softmax = ComputeSoftmax(context.kernels, logits, vocab, inv_t, weights);
        ps[first + i] = softmax.LogProb(logits[chunk.Head(i).target], inv_t);
        const double sum =
            context.kernels.weighted_log_sum(logits, weights, vocab, inv_t, softmax.max);
        es[first + i] = static_cast<float>(softmax.log_total - sum / softmax.total);
      });
    }
    ctx->save_for_backward({hidden});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    ctx->saved_data["parameter"] = parameter;
    ctx->saved_data["tied"] = tied;
    ctx->saved_data["trained"] = weight.requires_grad();
    ctx->mark_non_differentiable({entropy});
    return {logprobs, entropy};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto pass =
        c10::static_intrusive_pointer_cast<TrainPass>(ctx->saved_data["pass"].toCapsule());
    TrainContext& context = *pass->context;
    const at::Tensor hidden = ctx->get_saved_variables()[0];
    const at::Tensor g = gradients[0].contiguous();
    const int64_t vocab = context.config.vocab_size;
    at::Tensor ghidden = at::zeros(hidden.sizes(), hidden.options());
    // A tied embedding's part through lm_head is kept apart while it has an error to come.
    const bool apart = ctx->saved_data["tied"].toBool() && context.tied_head_gradient.defined();
    // D of the weight's error multiplies what this pass adds.
    const bool alone =
        pass->Injected(TensorRole::kWeightOperand, kOp, kLayer).GradientFactor().acts();
    at::Tensor gw;
    if (apart && !alone) {
      gw = context.tied_head_gradient;
    } else if (ctx->saved_data["trained"].toBool()) {
      gw = at::zeros({vocab, hidden.size(1)}, hidden.options());
    }
    const float* hs = hidden.const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    float* ghs = ghidden.mutable_data_ptr<float>();
    float* gws = gw.defined() ? gw.mutable_data_ptr<float>() : nullptr;
    const float inv_t = pass->inv_temperature;
    const bool err_on_sum = ErrsOnSum(*pass);
    for (int64_t first = 0; first < g.size(0); first += context.options.head_rows) {
      HeadChunk chunk(*pass, hs, first, ctx->saved_data["parameter"].toInt());
      chunk.ForEachLogits(Direction::kBackward, [&](int64_t i, float* logits, int worker) {
        float* weights = context.vocabulary[static_cast<size_t>(worker)].data();
        const RowSoftmax softmax = ComputeSoftmax(context.kernels, logits, vocab, inv_t, weights);
        // d logprob / d logit_v = (1[v = target] - p_v) / temperature
        const float weight = gs[first + i] * inv_t;
        context.kernels.scale(weights, vocab,
                              static_cast<float>(-static_cast<double>(weight) / softmax.total),
                              logits);
        logits[chunk.Head(i).target] += weight;
      });
      chunk.Backward(!err_on_sum, ghs, gws);
    }
    if (err_on_sum) PerturbSum(*pass, ghs);
    if (gws != nullptr) {
      pass->MultiplyByWeightFactor({kOp, kLayer, ctx->saved_data["parameter"].toInt()}, gws, vocab,
                                   hidden.size(1));
    }
    if (apart && alone) {
      context.kernels.add(context.tied_head_gradient.mutable_data_ptr<float>(), gws, gw.numel());
    }
    return {ghidden, apart ? at::Tensor() : gw, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

LogProbs HeadLogProbs(const at::Tensor& hidden, const at::Tensor& weight, int64_t parameter,
                      bool tied, const PassHandle& pass) {
  const variable_list outputs = HeadFunction::apply(hidden, weight, parameter, tied, pass);
  return {.logprobs = outputs[0], .entropy = outputs[1]};
}

}  // namespace temper::model
