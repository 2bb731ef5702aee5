// Rotary embedding and causal attention of a batch of groups. Per group and key/value head, keys
// and values are laid into the pages that the decode engine keeps, and the same kernel reads them:
// a row has the bits that it had when it was sampled. The gradient recomputes the probabilities.

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "model/kv_pages.h"
#include "model/train_context.h"

namespace temper::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t PagesOf(int64_t count) {
  return (count + kernels::kPagePositions - 1) / kernels::kPagePositions;
}

// The pages of one group and one key/value head, in a worker's scratch memory.
class GroupPages {
 public:
  GroupPages(const GroupRows& group, int64_t page_floats, float* memory) {
    int64_t pages = PagesOf(group.prompt.count);
    for (const RowRun& run : group.completions) pages += PagesOf(run.count);
    std::fill_n(memory, pages * page_floats, 0.0f);
    for (int64_t p = 0; p < pages; ++p) pages_.push_back(memory + p * page_floats);
    end_ = memory + pages * page_floats;
    float** next = pages_.data();
    runs_.push_back({group.prompt, next});
    next += PagesOf(group.prompt.count);
    for (const RowRun& run : group.completions) {
      runs_.push_back({run, next});
      next += PagesOf(run.count);
    }
  }

  struct Run {
    RowRun rows;
    float** pages;
  };
  const std::vector<Run>& runs() const { return runs_; }  // the prompt first
  float* end() const { return end_; }

 private:
  std::vector<float*> pages_;
  std::vector<Run> runs_;
  float* end_ = nullptr;
};

struct Shape {
  explicit Shape(const ModelConfig& config)
      : dim(config.head_dim),
        kv_heads(config.num_kv_heads),
        group_heads(config.num_heads / config.num_kv_heads),
        q_width(config.num_heads * dim),
        kv_width(kv_heads * dim),
        scale(static_cast<float>(1.0 / std::sqrt(config.head_dim))) {}
  int64_t dim, kv_heads, group_heads, q_width, kv_width;
  float scale;
};

// Rotates rows of [rows, heads * dim].
void RotateRows(const TrainPass& pass, float* x, int64_t heads, bool inverse) {
  TrainContext& context = *pass.context;
  const int64_t dim = context.config.head_dim;
  context.threads.Split(pass.rows(), kRowGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t position = pass.positions[static_cast<size_t>(row)];
      context.kernels.rope(x + row * heads * dim, heads, dim, context.rope.cosine(position),
                           context.rope.sine(position), inverse);
    }
  });
}

void AttendGroup(const TrainPass& pass, const GroupRows& group, int64_t kv_head, const float* q,
                 const float* k, const float* v, float* out, float* memory) {
  const Shape shape(pass.context->config);
  const GroupPages pages(group, kernels::HeadBlockFloats(shape.dim), memory);
  for (const GroupPages::Run& run : pages.runs()) {
    for (int64_t i = 0; i < run.rows.count; ++i) {
      const int64_t at = (run.rows.first + i) * shape.kv_width + kv_head * shape.dim;
      WriteKeyValue(k + at, v + at, 1, shape.dim, i % kernels::kPagePositions,
                    run.pages[i / kernels::kPagePositions]);
    }
  }
  const GroupPages::Run& prompt = pages.runs().front();
  for (const GroupPages::Run& run : pages.runs()) {
    const bool is_prompt = &run == &prompt;
    for (int64_t i = 0; i < run.rows.count; ++i) {
      const int64_t at =
          (run.rows.first + i) * shape.q_width + kv_head * shape.group_heads * shape.dim;
      kernels::AttendCall call = {.q = q + at,
                                  .out = out + at,
                                  .heads = shape.group_heads,
                                  .kv_heads = 1,
                                  .head_dim = shape.dim,
                                  .scale = shape.scale,
                                  .segments = {{prompt.pages, prompt.rows.count}, {}},
                                  .layer_offset = 0,
                                  .scratch = pages.end()};
      if (is_prompt) {
        call.segments[0].count = i + 1;
      } else {
        call.segments[1] = {run.pages, i + 1};
      }
      pass.context->kernels.attend(call);
    }
  }
}

// Columns (transposed) and rows of one position in a backward page.
void WriteBackwardPosition(const float* k, const float* v, int64_t dim, int64_t slot, float* page) {
  const int64_t key_block = kernels::KeyBlockFloats(dim);
  float* key_row = page + 2 * key_block + slot * kernels::PaddedHeadDim(dim);
  for (int64_t d = 0; d < dim; ++d) {
    page[d * kernels::kPagePositions + slot] = k[d];
    page[key_block + d * kernels::kPagePositions + slot] = v[d];
    key_row[d] = k[d];
  }
}

struct Gradients {
  float* q;
  float* k;
  float* v;
};

void AttendGroupBackward(const TrainPass& pass, const GroupRows& group, int64_t kv_head,
                         const float* q, const float* k, const float* v, const float* go,
                         const Gradients& gradients, float* memory) {
  const Shape shape(pass.context->config);
  const GroupPages pages(group, kernels::BackwardPageFloats(shape.dim), memory);
  for (const GroupPages::Run& run : pages.runs()) {
    for (int64_t i = 0; i < run.rows.count; ++i) {
      const int64_t at = (run.rows.first + i) * shape.kv_width + kv_head * shape.dim;
      WriteBackwardPosition(k + at, v + at, shape.dim, i % kernels::kPagePositions,
                            run.pages[i / kernels::kPagePositions]);
    }
  }
  const GroupPages::Run& prompt = pages.runs().front();
  for (const GroupPages::Run& run : pages.runs()) {
    const bool is_prompt = &run == &prompt;
    for (int64_t i = 0; i < run.rows.count; ++i) {
      const int64_t at =
          (run.rows.first + i) * shape.q_width + kv_head * shape.group_heads * shape.dim;
      pass.context->kernels.attend_backward(
          {.q = q + at,
           .go = go + at,
           .gq = gradients.q + at,
           .group_heads = shape.group_heads,
           .head_dim = shape.dim,
           .scale = shape.scale,
           .pages = {prompt.pages, is_prompt ? nullptr : run.pages},
           .counts = {is_prompt ? i + 1 : prompt.rows.count, is_prompt ? 0 : i + 1},
           .scratch = pages.end()});
    }
  }
  const int64_t width = kernels::PaddedHeadDim(shape.dim);
  const int64_t key_gradients =
      2 * kernels::KeyBlockFloats(shape.dim) + kernels::ValueBlockFloats(shape.dim);
  for (const GroupPages::Run& run : pages.runs()) {
    for (int64_t i = 0; i < run.rows.count; ++i) {
      const int64_t at = (run.rows.first + i) * shape.kv_width + kv_head * shape.dim;
      const float* row = run.pages[i / kernels::kPagePositions] + key_gradients +
                         i % kernels::kPagePositions * width;
      std::copy_n(row, shape.dim, gradients.k + at);
      std::copy_n(row + kernels::ValueBlockFloats(shape.dim), shape.dim, gradients.v + at);
    }
  }
}

struct AttendFunction : torch::autograd::Function<AttendFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const PassHandle& pass) {
    TrainContext& context = *pass->context;
    const Shape shape(context.config);
    at::Tensor rotated_q = Copy(q), rotated_k = Copy(k);
    float* qs = rotated_q.mutable_data_ptr<float>();
    float* ks = rotated_k.mutable_data_ptr<float>();
    RotateRows(*pass, qs, context.config.num_heads, false);
    RotateRows(*pass, ks, context.config.num_kv_heads, false);
    at::Tensor out = at::empty_like(rotated_q);
    float* outs = out.mutable_data_ptr<float>();
    const float* vs = v.const_data_ptr<float>();
    ForEachHead(*pass, [&](const GroupRows& group, int64_t kv_head, float* memory) {
      AttendGroup(*pass, group, kv_head, qs, ks, vs, outs, memory);
    });
    ctx->save_for_backward({rotated_q, rotated_k, v});
    ctx->saved_data["pass"] = c10::IValue::make_capsule(pass);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto pass =
        c10::static_intrusive_pointer_cast<TrainPass>(ctx->saved_data["pass"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor g = grads[0].contiguous();
    at::Tensor gq = at::empty_like(saved[0]);
    at::Tensor gk = at::empty_like(saved[1]);
    at::Tensor gv = at::empty_like(saved[2]);
    const float* qs = saved[0].const_data_ptr<float>();
    const float* ks = saved[1].const_data_ptr<float>();
    const float* vs = saved[2].const_data_ptr<float>();
    const float* gs = g.const_data_ptr<float>();
    const Gradients gradients = {.q = gq.mutable_data_ptr<float>(),
                                 .k = gk.mutable_data_ptr<float>(),
                                 .v = gv.mutable_data_ptr<float>()};
    ForEachHead(*pass, [&](const GroupRows& group, int64_t kv_head, float* memory) {
      AttendGroupBackward(*pass, group, kv_head, qs, ks, vs, gs, gradients, memory);
    });
    RotateRows(*pass, gradients.q, pass->context->config.num_heads, true);
    RotateRows(*pass, gradients.k, pass->context->config.num_kv_heads, true);
    return {gq, gk, gv, at::Tensor()};
  }

  template <typename Body>
  static void ForEachHead(const TrainPass& pass, const Body& body) {
    const int64_t kv_heads = pass.context->config.num_kv_heads;
    pass.context->threads.Run(
        static_cast<int64_t>(pass.groups.size()) * kv_heads, [&](int64_t task, int worker) {
          body(pass.groups[static_cast<size_t>(task / kv_heads)], task % kv_heads,
               pass.context->attention[static_cast<size_t>(worker)].data());
        });
  }

  static at::Tensor Copy(const at::Tensor& x) {
    at::Tensor copy = at::empty(x.sizes(), x.options());
    std::copy_n(x.const_data_ptr<float>(), x.numel(), copy.mutable_data_ptr<float>());
    return copy;
  }
};

}  // namespace

at::Tensor AttendRows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const PassHandle& pass) {
  return AttendFunction::apply(q, k, v, pass);
}

}  // namespace temper::model
