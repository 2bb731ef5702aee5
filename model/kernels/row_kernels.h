#pragma once

// The inner loops of the transformer but for its matrix products: norms, rotary embedding, SwiGLU,
// attention, softmax, and the weight gradient. Float32, row-major, one calling thread.
//
// Every sum has one order that depends on the row's own length alone: 16 lanes, element i in lane i
// mod 16, ascending, then a tree over the lanes (8, 4, 2, 1). So a row's bits do not depend on its
// batch, on threads, or on the instruction set: scalar, AVX2 and AVX-512 agree.
//
// The .cc files of the three sets include nothing of the standard library but <cstdint>, because an
// inline function compiled for AVX-512 must not replace one that runs on any machine.

#include <cstdint>

namespace temper::model::kernels {

// Positions of one page of a key/value cache.
inline constexpr int64_t kPagePositions = 16;
// Floats beyond the last position that score buffers need.
inline constexpr int64_t kScoreSlack = 64;

// head_dim rounded up to whole lanes: the length of a value row in a page.
constexpr int64_t PaddedHeadDim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// The part of a page that belongs to one layer and one key/value head:
//   keys   [head_dim][16]          transposed, so that 16 scores are computed at once
//   values [16][padded head_dim]   columns beyond head_dim are zero
constexpr int64_t KeyBlockFloats(int64_t head_dim) { return head_dim * kPagePositions; }
constexpr int64_t ValueBlockFloats(int64_t head_dim) {
  return PaddedHeadDim(head_dim) * kPagePositions;
}
constexpr int64_t HeadBlockFloats(int64_t head_dim) {
  return KeyBlockFloats(head_dim) + ValueBlockFloats(head_dim);
}

// The first `count` positions of a list of pages.
struct KvSegment {
  const float* const* pages = nullptr;
  int64_t count = 0;
};

// One query row against a prompt's cache and its completion's own: positions of segment 0 come
// first. How positions are split between segments does not change a bit.
struct AttendCall {
  const float* q = nullptr;  // [heads][head_dim], after rotary embedding
  float* out = nullptr;      // [heads][head_dim]
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;
  KvSegment segments[2];
  int64_t layer_offset = 0;  // floats from the start of a page to the layer's first head block
  float* scratch = nullptr;  // AttendScratchFloats(positions, head_dim)
};
constexpr int64_t AttendScratchFloats(int64_t positions, int64_t head_dim) {
  return positions + kScoreSlack + 4 * PaddedHeadDim(head_dim);
}

// The gradient of one query row and one key/value head. Blocks of a backward page, each
// [16][padded head_dim] but the first two, which are [head_dim][16]:
//   keys^T, values^T, keys, gradient of keys, gradient of values
constexpr int64_t BackwardPageFloats(int64_t head_dim) {
  return 2 * KeyBlockFloats(head_dim) + 3 * ValueBlockFloats(head_dim);
}
struct AttendBackwardCall {
  const float* q = nullptr;   // [group_heads][head_dim]: the query heads of this key/value head
  const float* go = nullptr;  // gradient of the output, as q
  float* gq = nullptr;        // overwritten, as q
  int64_t group_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;
  // Pages of this key/value head (BackwardPageFloats each); gradients are added to.
  float* const* pages[2] = {nullptr, nullptr};
  int64_t counts[2] = {0, 0};
  float* scratch = nullptr;  // AttendBackwardScratchFloats(positions, head_dim)
};
constexpr int64_t AttendBackwardScratchFloats(int64_t positions, int64_t head_dim) {
  return 2 * (positions + kScoreSlack) + 6 * PaddedHeadDim(head_dim);
}

struct RowKernels {
  // y = (x * r) * gamma with r = 1 / sqrt(mean x^2 + eps), per row. inv_rms: r of each row, or
  // null.
  void (*rms_norm)(const float* x, int64_t rows, int64_t cols, int64_t x_stride, const float* gamma,
                   float eps, float* y, int64_t y_stride, float* inv_rms);
  // gx = r (gamma gy) - x r^3 / cols * sum(gamma gy x). All [rows, cols], contiguous; overwritten.
  void (*rms_norm_backward)(const float* x, const float* gy, const float* gamma,
                            const float* inv_rms, int64_t rows, int64_t cols, float* gx);
  // ggamma[c] += sum over rows of gy x r, for columns begin .. end - 1.
  void (*rms_norm_gamma)(const float* x, const float* gy, const float* inv_rms, int64_t rows,
                         int64_t cols, int64_t begin, int64_t end, float* ggamma);
  // y += x.
  void (*add)(float* y, const float* x, int64_t count);
  // y[r, c] += bias[c].
  void (*add_bias)(float* y, int64_t rows, int64_t cols, int64_t stride, const float* bias);
  // sums[c] += sum over rows of g[r, c].
  void (*column_sums)(const float* g, int64_t rows, int64_t cols, float* sums);
  // Rotates pairs (i, i + head_dim / 2) of every head by the angles of a position: out_i = x_i
  // cos_i
  // - x_j sin_i, out_j = x_j cos_i + x_i sin_i. cosine, sine: [head_dim / 2]. inverse: by the
  // negative angles (the gradient).
  void (*rope)(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine,
               bool inverse);
  // y = gate / (1 + exp(-gate)) * up.
  void (*swiglu)(const float* gate, const float* up, int64_t rows, int64_t cols, int64_t in_stride,
                 float* y, int64_t y_stride);
  void (*swiglu_backward)(const float* gate, const float* up, const float* gy, int64_t count,
                          float* ggate, float* gup);
  void (*attend)(const AttendCall& call);
  void (*attend_backward)(const AttendBackwardCall& call);
  // weights[i] = exp(logits[i] * inv_temperature - max), returns their sum: sums of 64 elements in
  // the order above, added up in double. *max: the largest scaled logit. Not
  // finite if a logit is not.
  double (*softmax_weights)(const float* logits, int64_t count, float inv_temperature,
                            float* weights, float* max);
  // sum of weights[i] * (logits[i] * inv_temperature - max), as above.
  double (*weighted_log_sum)(const float* logits, const float* weights, int64_t count,
                             float inv_temperature, float max);
  // y[i] = x[i] * factor.
  void (*scale)(const float* x, int64_t count, float factor, float* y);
  // gw[n, k] += sum over rows r, ascending, of g[r, n] x[r, k], fused multiply-adds, for n in
  // [begin, end) and all k < cols. gw row n at gw + n * gw_stride.
  void (*grad_weight)(const float* g, int64_t g_stride, const float* x, int64_t x_stride,
                      int64_t rows, int64_t begin, int64_t end, int64_t cols, float* gw,
                      int64_t gw_stride);
};

extern const RowKernels kScalarKernels;
extern const RowKernels kAvx2Kernels;
extern const RowKernels kAvx512Kernels;

}  // namespace temper::model::kernels
