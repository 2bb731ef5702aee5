#pragma once

// What the learner's operators share: threads, packed weights, scratch memory (TrainContext), and
// the rows, keys and counts of one forward pass (TrainPass). Internal to train_*.cc.

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/kernels/row_kernels.h"
#include "model/noise_context.h"
#include "model/row_ops.h"
#include "model/thread_pool.h"
#include "model/train_forward.h"
#include "numerics/gemm.h"

namespace temper::model {

// Rows that one task takes through a linear.
inline constexpr int64_t kRowGrain = 64;

// A linear's weight for y = x W^T and for g_x = g W.
struct PackedLinear {
  numerics::PackedMatrix forward;
  numerics::PackedMatrix transposed;
};

// Owned by TrainModel; outlives every pass.
struct TrainContext {
  TrainContext(const ModelConfig& model_config, const TrainOptions& train_options);

  ModelConfig config;
  TrainOptions options;
  ThreadPool threads;
  const kernels::RowKernels& kernels;
  RopeTable rope;
  std::vector<PackedLinear> linears;           // by index of the parameter; empty for others
  std::vector<GroupCounts> backward_counts;    // per worker, phase train
  std::vector<std::vector<float>> attention;   // per worker, scratch
  std::vector<std::vector<float>> vocabulary;  // per worker, [vocab]
  std::vector<float> head_inputs;              // [head_rows, hidden]
  std::vector<float> head_logits;              // [head_rows, vocab]
  // Gradient of a tied embedding that came through lm_head, while lm_head's g_W errs; else empty.
  at::Tensor tied_head_gradient;
};

// A run of rows of one sequence: its positions are consecutive.
struct RowRun {
  int64_t first = 0;
  int64_t count = 0;
};
struct GroupRows {
  RowRun prompt;
  std::vector<RowRun> completions;  // all tokens but the last, which predicts nothing
};
// A row of hidden states and the token it has to predict.
struct HeadRow {
  int64_t row = 0;
  int32_t target = 0;
};

// Held by the graph's nodes, so it lives as long as the graph.
struct TrainPass final : torch::CustomClassHolder {
  TrainContext* context = nullptr;
  std::vector<int32_t> tokens;  // one per row
  std::vector<uint32_t> positions;
  std::vector<GroupRows> groups;
  std::vector<HeadRow> head_rows;  // one per completion token
  float inv_temperature = 1.0f;

  const numerics::NoisePolicy* forward_policy = nullptr;   // null: no error in the forward pass
  const numerics::NoisePolicy* backward_policy = nullptr;  // null: none in the backward pass
  numerics::Phase phase = numerics::Phase::kTrain;
  std::vector<numerics::RowKey> forward_keys;   // one per row
  std::vector<numerics::RowKey> gradient_keys;  // of g_x
  std::vector<GroupCounts> forward_counts;      // per worker
  std::vector<std::vector<float>> aqn_norms;    // perturbed norms; empty without AQN

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  // The error of the forward draw whose D multiplies gradients; none where D = 1. It is linear, so
  // to multiply by its D is to apply it.
  numerics::OperatorError GradientFactor(numerics::Operator op, int layer) const;
  // The error of the operator's g_x.
  numerics::OperatorError InputGradientError(numerics::Operator op, int layer) const;

  // y holds rows first .. first + rows - 1 of `keys`; [rows, cols] contiguous.
  void ForwardError(float* y, int64_t first, int64_t rows, int64_t cols,
                    std::span<const numerics::RowKey> keys, numerics::Operator op, int layer,
                    int worker);
  void GradientError(float* gx, int64_t first, int64_t rows, int64_t cols,
                     std::span<const numerics::RowKey> keys, numerics::Operator op, int layer,
                     int worker);
};
using PassHandle = c10::intrusive_ptr<TrainPass>;

// Lays out the rows of a batch and their keys. InvalidArgument as TrainModel::Forward.
absl::StatusOr<PassHandle> LayOutPass(std::span<const TrainGroup> groups,
                                      const LogProbOptions& options, TrainContext* context);

// Where a linear's error acts and which packed weight it multiplies with.
struct LinearSite {
  numerics::Operator op;
  int layer;
  int64_t parameter;  // index into TrainContext::linears
};

// Differentiable operators over [rows, features] tensors, float32, contiguous.
at::Tensor EmbedRows(const at::Tensor& weight, const PassHandle& pass);
at::Tensor AddRows(const at::Tensor& a, const at::Tensor& b, const PassHandle& pass);
// aqn_norm: index into TrainPass::aqn_norms of the weight that acts in place of gamma, or -1.
at::Tensor NormRows(const at::Tensor& x, const at::Tensor& gamma, int64_t aqn_norm,
                    const PassHandle& pass);
// bias: may be undefined.
at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const LinearSite& site, const PassHandle& pass);
// Rotary embedding and causal attention inside each group.
at::Tensor AttendRows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const PassHandle& pass);
at::Tensor SwiGluRows(const at::Tensor& gate, const at::Tensor& up, const PassHandle& pass);
// lm_head, log-softmax and gather, in chunks of head rows. tied: weight is the embedding.
LogProbs HeadLogProbs(const at::Tensor& hidden, const at::Tensor& weight, int64_t parameter,
                      bool tied, const PassHandle& pass);

}  // namespace temper::model
