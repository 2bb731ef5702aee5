#include "model/decode_pass.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "model/operand_error.h"

namespace temper::model {
namespace {

using numerics::Direction;
using numerics::Operator;

// Where the rows of a norm are read and written: [rows, vectors, width] floats, the vectors of a
// row next to each other.
struct NormedRows {
  const float* in;
  float* out;
  int64_t vectors;
  int64_t width;
  int64_t in_stride;  // of a row, in floats
  int64_t out_stride;
};

// Norms rows first_row .. first_row + rows - 1 of the pass, of which `place` holds the first, each
// under its group's draw.
void NormRows(const DecodePass& pass, Operator norm, int layer, int64_t first_row, int64_t rows,
              const NormedRows& place) {
  const DecodeWeights& weights = *pass.weights;
  const size_t slot = NormSlot(norm, layer, static_cast<int>(weights.config.num_layers));
  const float* clean = weights.clean_norms[slot].data();
  const auto eps = static_cast<float>(weights.config.rms_norm_eps);
  for (size_t s = 0; s < pass.noise.segments.size(); ++s) {
    const RowSegment& segment = pass.noise.segments[s];
    const int64_t begin = std::max(segment.begin, first_row);
    const int64_t end = std::min(segment.end, first_row + rows);
    if (begin >= end) continue;
    const NormDraw* draw = pass.norms[s];
    const float* gamma = draw == nullptr ? clean : draw->Weight(slot, clean);
    if (place.vectors == 1) {
      pass.kernels->rms_norm(place.in + (begin - first_row) * place.in_stride, end - begin,
                             place.width, place.in_stride, gamma, eps,
                             place.out + (begin - first_row) * place.out_stride, place.out_stride,
                             nullptr);
    } else {
      for (int64_t row = begin - first_row; row < end - first_row; ++row) {
        pass.kernels->rms_norm(place.in + row * place.in_stride, place.vectors, place.width,
                               place.width, gamma, eps, place.out + row * place.out_stride,
                               place.width, nullptr);
      }
    }
    CountNormRows(segment.counts, end - begin, norm, layer,
                  draw == nullptr ? NormPerturbation() : draw->norms[slot].perturbation);
  }
}

// The same of rows of the residual stream, into the first rows of scratch->normed.
void NormStream(const DecodePass& pass, Operator norm, int layer, int64_t first_row, int64_t rows,
                DecodeScratch* scratch) {
  const int64_t hidden = pass.weights->config.hidden_size;
  NormRows(pass, norm, layer, first_row, rows,
           {.in = scratch->x.data() + first_row * hidden,
            .out = scratch->normed.data(),
            .vectors = 1,
            .width = hidden,
            .in_stride = hidden,
            .out_stride = hidden});
}

// y = x^ W^^T over `rows` rows from first_row on. ops: the operators whose outputs lie side by side
// in `stacked`, the clean matrix.
void Product(const DecodePass& pass, const float* x, int64_t first_row, int64_t rows, int64_t in,
             const numerics::PackedMatrix& stacked, std::initializer_list<Operator> ops, float* y,
             int64_t stride, int layer, DecodeScratch* scratch) {
  if (pass.injected == nullptr || pass.injected->Find(*ops.begin(), layer) == nullptr) {
    numerics::Gemm(x, rows, in, stacked, y, stride);
    return;
  }
  for (const Operator op : ops) {
    const InjectedLinear& linear = *pass.injected->Find(op, layer);
    const ProductRows product = {
        .noise = pass.noise, .op = op, .layer = layer, .first_row = first_row, .rows = rows};
    const float* operand = InputOperand(x, in, product, scratch->operand.data());
    numerics::Gemm(operand, rows, in, linear.matrix, y, stride);
    CountWeight(product, linear.perturbation);
    y += linear.matrix.out_features();
  }
}

// The errors of an operator's result, y: first that of the operator, then the injection's.
void PerturbResult(const DecodePass& pass, float* y, int64_t first_row, int64_t rows, int64_t cols,
                   int64_t stride, Operator op, int layer, DecodeScratch* scratch) {
  ApplyRowError(y, first_row, rows, cols, stride, pass.noise, pass.noise.keys, Direction::kForward,
                op, layer);
  InjectOutput(
      y, cols, stride,
      {.noise = pass.noise, .op = op, .layer = layer, .first_row = first_row, .rows = rows},
      scratch->operand.data());
}

void Watch(const DecodePass& pass, const ObservedRows& rows) {
  if (pass.observer != nullptr) pass.observer->Observe(rows);
}

class PassRunner {
 public:
  PassRunner(const DecodePass& pass, DecodeScratch* scratch)
      : pass_(pass),
        kernels_(*pass.kernels),
        config_(pass.weights->config),
        scratch_(*scratch),
        rows_(static_cast<int64_t>(pass.rows.size())),
        hidden_(config_.hidden_size),
        q_width_(config_.num_heads * config_.head_dim),
        kv_width_(config_.num_kv_heads * config_.head_dim) {}

  void Layer(int64_t index) {
    const DecodeLayer& layer = pass_.weights->layers[static_cast<size_t>(index)];
    const int number = static_cast<int>(index);
    NormStream(pass_, Operator::kInputNorm, number, 0, rows_, &scratch_);
    Attention(layer, number);
    kernels_.add(scratch_.x.data(), scratch_.projected.data(), rows_ * hidden_);
    NormStream(pass_, Operator::kPostAttentionNorm, number, 0, rows_, &scratch_);
    Mlp(layer, number);
    kernels_.add(scratch_.x.data(), scratch_.projected.data(), rows_ * hidden_);
    Watch(pass_, {ObservedPoint::kLayerOutput, {}, number, scratch_.x.data(), rows_, hidden_});
  }

 private:
  void Multiply(const float* x, int64_t in, const numerics::PackedMatrix& stacked,
                std::initializer_list<Operator> ops, float* y, int64_t stride, int layer) {
    Product(pass_, x, 0, rows_, in, stacked, ops, y, stride, layer, &scratch_);
  }

  void Error(float* y, int64_t cols, int64_t stride, Operator op, int layer) {
    PerturbResult(pass_, y, 0, rows_, cols, stride, op, layer, &scratch_);
  }

  void WatchInput(Operator op, int layer, const std::vector<float>& x, int64_t cols) {
    Watch(pass_, {ObservedPoint::kLinearInput, op, layer, x.data(), rows_, cols});
  }

  void Adapter(const float* x, float* y, int64_t stride, Operator op, int layer) {
    AddAdapter(pass_, op, layer, x, y, stride, &scratch_);
  }

  void Attention(const DecodeLayer& layer, int number) {
    WatchInput(Operator::kQ, number, scratch_.normed, hidden_);
    const int64_t width = q_width_ + 2 * kv_width_;
    float* qkv = scratch_.qkv.data();
    Multiply(scratch_.normed.data(), hidden_, layer.qkv, {Operator::kQ, Operator::kK, Operator::kV},
             qkv, width, number);
    Error(qkv, q_width_, width, Operator::kQ, number);
    Error(qkv + q_width_, kv_width_, width, Operator::kK, number);
    Error(qkv + q_width_ + kv_width_, kv_width_, width, Operator::kV, number);
    if (!layer.qkv_bias.empty()) {
      kernels_.add_bias(qkv, rows_, width, width, layer.qkv_bias.data());
    }
    Adapter(scratch_.normed.data(), qkv, width, Operator::kQ, number);
    Adapter(scratch_.normed.data(), qkv + q_width_, width, Operator::kK, number);
    Adapter(scratch_.normed.data(), qkv + q_width_ + kv_width_, width, Operator::kV, number);
    if (config_.qk_norm) {
      HeadNorm(qkv, config_.num_heads, width, Operator::kQNorm, number);
      HeadNorm(qkv + q_width_, config_.num_kv_heads, width, Operator::kKNorm, number);
    }
    for (int64_t row = 0; row < rows_; ++row) StoreRow(number, row, qkv + row * width);
    for (int64_t row = 0; row < rows_; ++row) AttendRow(number, row, qkv + row * width);
    WatchInput(Operator::kO, number, scratch_.attended, q_width_);
    Multiply(scratch_.attended.data(), q_width_, layer.o, {Operator::kO}, scratch_.projected.data(),
             hidden_, number);
    Error(scratch_.projected.data(), hidden_, hidden_, Operator::kO, number);
    Adapter(scratch_.attended.data(), scratch_.projected.data(), hidden_, Operator::kO, number);
  }

  // Norms the heads of all rows in place. stride: of a row, in floats.
  void HeadNorm(float* heads, int64_t count, int64_t stride, Operator norm, int number) {
    NormRows(pass_, norm, number, 0, rows_,
             {.in = heads,
              .out = heads,
              .vectors = count,
              .width = config_.head_dim,
              .in_stride = stride,
              .out_stride = stride});
  }

  // Rotates q and k of a row and writes its keys and values to the cache.
  void StoreRow(int number, int64_t row, float* qkv) {
    const DecodeRow& r = pass_.rows[static_cast<size_t>(row)];
    const int64_t dim = config_.head_dim;
    float* k = qkv + q_width_;
    const float* cosine = pass_.rope->cosine(r.position);
    const float* sine = pass_.rope->sine(r.position);
    kernels_.rope(qkv, config_.num_heads, dim, cosine, sine, false);
    kernels_.rope(k, config_.num_kv_heads, dim, cosine, sine, false);
    // A completion's pages start at its own first token.
    const int64_t slot = (r.segments[1].count > 0 ? r.segments[1].count : r.segments[0].count) - 1;
    WriteKeyValue(k, k + kv_width_, config_.num_kv_heads, dim, slot % kernels::kPagePositions,
                  r.page + pass_.pages->LayerOffset(number));
  }

  void AttendRow(int number, int64_t row, const float* q) {
    const DecodeRow& r = pass_.rows[static_cast<size_t>(row)];
    kernels_.attend({.q = q,
                     .out = scratch_.attended.data() + row * q_width_,
                     .heads = config_.num_heads,
                     .kv_heads = config_.num_kv_heads,
                     .head_dim = config_.head_dim,
                     .scale = static_cast<float>(1.0 / std::sqrt(config_.head_dim)),
                     .segments = {r.segments[0], r.segments[1]},
                     .layer_offset = pass_.pages->LayerOffset(number),
                     .scratch = scratch_.attention.data()});
  }

  void Mlp(const DecodeLayer& layer, int number) {
    const int64_t inner = config_.intermediate_size;
    float* gate_up = scratch_.gate_up.data();
    WatchInput(Operator::kGate, number, scratch_.normed, hidden_);
    Multiply(scratch_.normed.data(), hidden_, layer.gate_up, {Operator::kGate, Operator::kUp},
             gate_up, 2 * inner, number);
    Error(gate_up, inner, 2 * inner, Operator::kGate, number);
    Error(gate_up + inner, inner, 2 * inner, Operator::kUp, number);
    Adapter(scratch_.normed.data(), gate_up, 2 * inner, Operator::kGate, number);
    Adapter(scratch_.normed.data(), gate_up + inner, 2 * inner, Operator::kUp, number);
    kernels_.swiglu(gate_up, gate_up + inner, rows_, inner, 2 * inner, scratch_.activated.data(),
                    inner);
    WatchInput(Operator::kDown, number, scratch_.activated, inner);
    Multiply(scratch_.activated.data(), inner, layer.down, {Operator::kDown},
             scratch_.projected.data(), hidden_, number);
    Error(scratch_.projected.data(), hidden_, hidden_, Operator::kDown, number);
    Adapter(scratch_.activated.data(), scratch_.projected.data(), hidden_, Operator::kDown, number);
  }

  const DecodePass& pass_;
  const kernels::RowKernels& kernels_;
  const ModelConfig& config_;
  DecodeScratch& scratch_;
  int64_t rows_;
  int64_t hidden_;
  int64_t q_width_;
  int64_t kv_width_;
};

void Grow(std::vector<float>& buffer, int64_t floats) {
  if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(static_cast<size_t>(floats));
}

}  // namespace

void ReserveScratch(const ModelConfig& config, int64_t rows, int64_t positions, int64_t logit_rows,
                    bool injection, DecodeScratch* scratch) {
  const int64_t q_width = config.num_heads * config.head_dim;
  const int64_t kv_width = config.num_kv_heads * config.head_dim;
  const int64_t most = std::max(rows, logit_rows);
  Grow(scratch->x, most * config.hidden_size);
  Grow(scratch->normed, most * config.hidden_size);
  Grow(scratch->qkv, rows * (q_width + 2 * kv_width));
  Grow(scratch->attended, rows * q_width);
  Grow(scratch->projected, rows * config.hidden_size);
  Grow(scratch->gate_up, rows * 2 * config.intermediate_size);
  Grow(scratch->activated, rows * config.intermediate_size);
  Grow(scratch->logits, logit_rows * config.vocab_size);
  if (injection) {
    const int64_t widest = std::max({config.hidden_size, q_width, config.intermediate_size});
    Grow(scratch->operand, std::max(most * widest, config.vocab_size));
  }
  Grow(scratch->attention, kernels::AttendScratchFloats(positions, config.head_dim));
}

void RunDecodePass(const DecodePass& pass, DecodeScratch* scratch) {
  PassRunner runner(pass, scratch);
  const DecodeWeights& weights = *pass.weights;
  for (size_t row = 0; row < pass.rows.size(); ++row) {
    weights.Embed(pass.rows[row].token,
                  scratch->x.data() + static_cast<int64_t>(row) * weights.config.hidden_size);
  }
  Watch(pass, {ObservedPoint::kLayerOutput,
               {},
               numerics::kNoLayer,
               scratch->x.data(),
               static_cast<int64_t>(pass.rows.size()),
               weights.config.hidden_size});
  for (int64_t layer = 0; layer < weights.config.num_layers; ++layer) runner.Layer(layer);
}

void ComputeLogits(const DecodePass& pass, int64_t first_row, int64_t rows,
                   DecodeScratch* scratch) {
  const DecodeWeights& weights = *pass.weights;
  const int64_t hidden = weights.config.hidden_size;
  const int64_t vocab = weights.config.vocab_size;
  NormStream(pass, Operator::kFinalNorm, numerics::kNoLayer, first_row, rows, scratch);
  Watch(pass, {ObservedPoint::kLinearInput, Operator::kLmHead, numerics::kNoLayer,
               scratch->normed.data(), rows, hidden, first_row});
  Product(pass, scratch->normed.data(), first_row, rows, hidden, weights.lm_head,
          {Operator::kLmHead}, scratch->logits.data(), vocab, numerics::kNoLayer, scratch);
  PerturbResult(pass, scratch->logits.data(), first_row, rows, vocab, vocab, Operator::kLmHead,
                numerics::kNoLayer, scratch);
}

}  // namespace temper::model
