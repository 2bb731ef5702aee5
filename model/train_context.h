#pragma once

// What the learner's operators share: threads, packed weights, scratch memory (TrainContext), and
// the rows, keys and counts of one forward pass (TrainPass). Internal to train_*.cc.

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/kernels/row_kernels.h"
#include "model/noise_context.h"
#include "model/norm_draw.h"
#include "model/operand_error.h"
#include "model/row_ops.h"
#include "model/thread_pool.h"
#include "model/train_forward.h"
#include "numerics/gemm.h"

namespace temper::model {

// Rows that one task takes through a linear.
inline constexpr int64_t kRowGrain = 64;

// A linear's weight for y = x W^T and for g_x = g W; empty until a pass needs it.
struct PackedLinear {
  numerics::PackedMatrix forward;
  numerics::PackedMatrix transposed;
  WeightPerturbation perturbation;  // of one that errs
};

// An adapter's two matrices, packed, and which linear they belong to.
struct PackedAdapter {
  PackedLinear a;  // [rank, in]
  PackedLinear b;  // [out, rank]
  LoraModule module;
  float scale = 1.0f;  // alpha / rank
};

// Owned by TrainModel; outlives every pass.
struct TrainContext {
  TrainContext(const ModelConfig& model_config, const TrainOptions& train_options);

  ModelConfig config;
  TrainOptions options;
  ThreadPool threads;
  const kernels::RowKernels& kernels;
  RopeTable rope;
  std::vector<PackedLinear> linears;  // by index of the parameter; empty for others
  // The same of weights that err, as the last pass that had some read them; null: of none yet.
  // Passes keep their own until they are gone.
  std::shared_ptr<std::vector<PackedLinear>> injected;
  uint64_t injected_id = 0;                    // InjectionPolicy::WeightsId
  std::vector<PackedAdapter> adapters;         // by index of the module; empty without
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

// Where a linear's error acts and which packed weight it multiplies with.
struct LinearSite {
  numerics::Operator op;
  int layer;
  int64_t parameter;  // index into TrainContext::linears
};

// The keys of some rows of a pass: of the operators' errors, and of injections where they draw.
struct PassKeys {
  std::span<const numerics::RowKey> forward;
  std::span<const numerics::RowKey> injection;
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
  // Runs of rows from 0 whose norms share a draw of AQN; none without AQN.
  struct AqnRun {
    NormDraw draw;
    int64_t end = 0;
  };
  std::vector<AqnRun> aqn_runs;

  // hw_error_injection: null where it does not act in this phase. Its draws of rows, one per row,
  // and of weights.
  const numerics::InjectionPolicy* injection = nullptr;
  numerics::TensorError no_error;
  std::vector<numerics::RowKey> injection_keys;
  uint64_t weight_key = 0;
  std::shared_ptr<std::vector<PackedLinear>> injected;  // TrainContext::injected; null without

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  // The error of the forward draw whose D multiplies gradients; none where D = 1. It is linear, so
  // to multiply by its D is to apply it.
  numerics::OperatorError GradientFactor(numerics::Operator op, int layer) const;
  // The injected error of an operand or result; none where it has none.
  const numerics::TensorError& Injected(numerics::TensorRole role, numerics::Operator op,
                                        int layer) const;
  // The error of the operator's g_x.
  numerics::OperatorError InputGradientError(numerics::Operator op, int layer) const;

  // x^ of x, which holds rows first .. first + rows - 1 of `keys`, in `buffer` (as large) where it
  // errs, else x itself. Counts both operands. [rows, cols] contiguous.
  const float* Operand(const float* x, int64_t first, int64_t rows, int64_t cols,
                       const PassKeys& keys, const LinearSite& site, numerics::Direction direction,
                       int worker, float* buffer);
  // y holds rows first .. first + rows - 1 of `keys`; [rows, cols] contiguous.
  void ForwardError(float* y, int64_t first, int64_t rows, int64_t cols, const PassKeys& keys,
                    numerics::Operator op, int layer, int worker);
  void GradientError(float* gx, int64_t first, int64_t rows, int64_t cols,
                     std::span<const numerics::RowKey> keys, numerics::Operator op, int layer,
                     int worker);
  // g_W D_W in place, for a g_W [out, in] that holds this pass alone.
  void MultiplyByWeightFactor(const LinearSite& site, float* gw, int64_t out, int64_t in) const;
  // The packed weight that the pass multiplies with.
  const PackedLinear& Weights(const LinearSite& site) const;
  PassKeys keys() const { return {.forward = forward_keys, .injection = injection_keys}; }
  // The same of the product `op` (lora_a or lora_b) of an adapter, for rows of the pass; forward on
  // the product, backward on the gradient of what was multiplied. In train_adapter.cc.
  void AdapterError(float* values, int64_t first, int64_t rows, int64_t cols,
                    numerics::Direction direction, numerics::Operator op, const LoraModule& module,
                    int worker);
};
using PassHandle = c10::intrusive_ptr<TrainPass>;

// Lays out the rows of a batch and their keys. InvalidArgument as TrainModel::Forward.
absl::StatusOr<PassHandle> LayOutPass(std::span<const TrainGroup> groups,
                                      const LogProbOptions& options, TrainContext* context);

// Differentiable operators over [rows, features] tensors, float32, contiguous.
at::Tensor EmbedRows(const at::Tensor& weight, const PassHandle& pass);
at::Tensor AddRows(const at::Tensor& a, const at::Tensor& b, const PassHandle& pass);
// Which norm it is: for its draw and its counts.
struct NormSite {
  numerics::Operator op;
  int layer;
};
// RMSNorm with gamma, or with what AQN makes of it for the group of each row. x: [rows, features],
// or [rows * heads, head_dim].
at::Tensor NormRows(const at::Tensor& x, const at::Tensor& gamma, const NormSite& site,
                    const PassHandle& pass);
// bias: may be undefined.
at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const LinearSite& site, const PassHandle& pass);
// y + (alpha / r) (x A^T) B^T, of the adapter TrainContext::adapters[index].
at::Tensor AdaptRows(const at::Tensor& y, const at::Tensor& x, const at::Tensor& a,
                     const at::Tensor& b, int64_t index, const PassHandle& pass);
// The error of the gradients of an adapter's matrices, once per optimizer step; key: of g_W.
void ApplyAdapterGradError(const PackedAdapter& adapter, const at::Tensor& a, const at::Tensor& b,
                           const numerics::NoisePolicy& policy, uint64_t key,
                           numerics::NoiseCounters* counters);
// Rotary embedding and causal attention inside each group.
at::Tensor AttendRows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const PassHandle& pass);
at::Tensor SwiGluRows(const at::Tensor& gate, const at::Tensor& up, const PassHandle& pass);
// lm_head, log-softmax and gather, in chunks of head rows. tied: weight is the embedding.
LogProbs HeadLogProbs(const at::Tensor& hidden, const at::Tensor& weight, int64_t parameter,
                      bool tied, const PassHandle& pass);

}  // namespace temper::model
