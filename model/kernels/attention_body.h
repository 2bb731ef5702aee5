#pragma once

// Attention of one query row over pages of keys and values, and its gradient, in Lanes; included by
// one .cc file per instruction set, after norm_body.h.

#include <cstdint>

#include "model/kernels/row_kernels.h"

namespace temper::model::kernels {
namespace {

// scores[16 p + i] = scale * (x . column i of block p), one chain over d; blocks are
// [head_dim][16] at pages[p] + offset. Writes whole pages.
template <int kBlocks>
inline void ScorePages(const float* x, const float* const* pages, int64_t offset, int64_t head_dim,
                       Lanes scale, float* scores) {
  Lanes sums[kBlocks];
  const float* blocks[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    sums[b] = Lanes::Zero();
    blocks[b] = pages[b] + offset;
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    const Lanes xd = Lanes::Broadcast(x[d]);
    for (int b = 0; b < kBlocks; ++b) {
      sums[b] = Lanes::Fma(xd, Lanes::Load(blocks[b] + d * 16), sums[b]);
    }
  }
  for (int b = 0; b < kBlocks; ++b) (sums[b] * scale).Store(scores + b * 16);
}

inline void Score(const float* x, const float* const* pages, int64_t count, int64_t offset,
                  int64_t head_dim, float scale, float* scores) {
  const int64_t blocks = (count + 15) / 16;
  const Lanes factor = Lanes::Broadcast(scale);
  int64_t p = 0;
  for (; p + 4 <= blocks; p += 4) {
    ScorePages<4>(x, pages + p, offset, head_dim, factor, scores + p * 16);
  }
  for (; p + 2 <= blocks; p += 2) {
    ScorePages<2>(x, pages + p, offset, head_dim, factor, scores + p * 16);
  }
  if (p < blocks) ScorePages<1>(x, pages + p, offset, head_dim, factor, scores + p * 16);
}

// Four chains, position j in chain (first + j) mod 4 of the sequence, so that the split between
// segments does not show. Adds weights[j] * rows[j] of one segment to sums: [4][width].
inline void AddWeighted(const float* weights, const float* const* pages, int64_t count,
                        int64_t first, int64_t offset, int64_t width, float* sums) {
  for (int64_t d = 0; d < width; d += 16) {
    Lanes chain[4];
    for (int i = 0; i < 4; ++i) chain[i] = Lanes::Load(sums + ((i + first) & 3) * width + d);
    for (int64_t j = 0; j < count; j += 16) {
      const float* rows = pages[j / 16] + offset + d;
      const int64_t here = count - j < 16 ? count - j : 16;
      int64_t i = 0;
      for (; i + 4 <= here; i += 4) {
        for (int k = 0; k < 4; ++k) {
          chain[k] = Lanes::Fma(Lanes::Broadcast(weights[j + i + k]),
                                Lanes::Load(rows + (i + k) * width), chain[k]);
        }
      }
      for (int k = 0; i + k < here; ++k) {
        chain[k] = Lanes::Fma(Lanes::Broadcast(weights[j + i + k]),
                              Lanes::Load(rows + (i + k) * width), chain[k]);
      }
    }
    for (int i = 0; i < 4; ++i) chain[i].Store(sums + ((i + first) & 3) * width + d);
  }
}

// scores[0 .. total) becomes exp(score - largest), up to the next multiple of 16 filled with zeros.
// Returns their sum.
inline float ExpAndSum(float* scores, int64_t total) {
  const int64_t padded = (total + 15) / 16 * 16;
  for (int64_t i = total; i < padded; ++i) scores[i] = -__builtin_inff();
  Lanes largest = Lanes::Load(scores);
  for (int64_t i = 16; i < padded; i += 16) largest = Lanes::Max(largest, Lanes::Load(scores + i));
  const Lanes max = Lanes::Broadcast(largest.Largest());
  Lanes sum = Lanes::Zero();
  for (int64_t i = 0; i < padded; i += 16) {
    const Lanes e = Exp(Lanes::Load(scores + i) - max);
    e.Store(scores + i);
    sum = sum + e;
  }
  return sum.Sum();
}

inline void ClearFloats(float* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) Lanes::Zero().Store(p + i);
}

// out = ((sums 0 + sums 1) + (sums 2 + sums 3)) * factor.
inline void JoinChains(const float* sums, int64_t width, int64_t head_dim, float factor,
                       float* out) {
  for (int64_t d = 0; d < width; d += 16) {
    const Lanes joined = (Lanes::Load(sums + d) + Lanes::Load(sums + width + d)) +
                         (Lanes::Load(sums + 2 * width + d) + Lanes::Load(sums + 3 * width + d));
    StoreUpTo(joined * Lanes::Broadcast(factor), out + d, head_dim - d);
  }
}

void Attend(const AttendCall& call) {
  const int64_t width = PaddedHeadDim(call.head_dim);
  const int64_t per_kv_head = call.heads / call.kv_heads;
  const KvSegment& prompt = call.segments[0];
  const KvSegment& own = call.segments[1];
  const int64_t total = prompt.count + own.count;
  float* sums = call.scratch;
  float* scores = call.scratch + 4 * width;
  for (int64_t h = 0; h < call.heads; ++h) {
    const float* q = call.q + h * call.head_dim;
    const int64_t keys = call.layer_offset + h / per_kv_head * HeadBlockFloats(call.head_dim);
    const int64_t values = keys + KeyBlockFloats(call.head_dim);
    Score(q, prompt.pages, prompt.count, keys, call.head_dim, call.scale, scores);
    Score(q, own.pages, own.count, keys, call.head_dim, call.scale, scores + prompt.count);
    const float sum = ExpAndSum(scores, total);
    ClearFloats(sums, 4 * width);
    AddWeighted(scores, prompt.pages, prompt.count, 0, values, width, sums);
    AddWeighted(scores + prompt.count, own.pages, own.count, prompt.count, values, width, sums);
    JoinChains(sums, width, call.head_dim, 1.0f / sum, call.out + h * call.head_dim);
  }
}

// rows[j] += weights[j] * x for the positions of one segment.
inline void AddOuter(const float* weights, const float* x, float* const* pages, int64_t count,
                     int64_t offset, int64_t width) {
  for (int64_t d = 0; d < width; d += 16) {
    const Lanes xd = Lanes::Load(x + d);
    for (int64_t j = 0; j < count; ++j) {
      float* row = pages[j / 16] + offset + (j & 15) * width + d;
      Lanes::Fma(Lanes::Broadcast(weights[j]), xd, Lanes::Load(row)).Store(row);
    }
  }
}

// ds_j = p_j (dp_j - sum_i p_i dp_i) * scale, with p = weights / sum. weights becomes p, gradients
// becomes ds; both have a length that is filled up to a multiple of 16, weights with zeros.
inline void SoftmaxBackward(float* weights, float* gradients, int64_t total, float inv_sum,
                            float scale) {
  const int64_t padded = (total + 15) / 16 * 16;
  for (int64_t i = total; i < padded; ++i) gradients[i] = 0.0f;
  const Lanes factor = Lanes::Broadcast(inv_sum);
  Lanes dot = Lanes::Zero();
  for (int64_t i = 0; i < padded; i += 16) {
    const Lanes p = Lanes::Load(weights + i) * factor;
    p.Store(weights + i);
    dot = Lanes::Fma(p, Lanes::Load(gradients + i), dot);
  }
  const Lanes mean = Lanes::Broadcast(dot.Sum());
  const Lanes s = Lanes::Broadcast(scale);
  for (int64_t i = 0; i < padded; i += 16) {
    const Lanes p = Lanes::Load(weights + i);
    ((p * (Lanes::Load(gradients + i) - mean)) * s).Store(gradients + i);
  }
}

void AttendBackward(const AttendBackwardCall& call) {
  const int64_t width = PaddedHeadDim(call.head_dim);
  const int64_t key_block = KeyBlockFloats(call.head_dim);
  const int64_t row_block = ValueBlockFloats(call.head_dim);
  const int64_t keys = 2 * key_block;
  const int64_t key_gradients = keys + row_block;
  const int64_t value_gradients = key_gradients + row_block;
  const int64_t total = call.counts[0] + call.counts[1];
  float* sums = call.scratch;
  float* q = sums + 4 * width;
  float* go = q + width;
  float* weights = go + width;
  float* gradients = weights + total + kScoreSlack;
  ClearFloats(q, 2 * width);
  for (int64_t h = 0; h < call.group_heads; ++h) {
    for (int64_t d = 0; d < call.head_dim; ++d) {
      q[d] = call.q[h * call.head_dim + d];
      go[d] = call.go[h * call.head_dim + d];
    }
    for (int64_t s = 0, first = 0; s < 2; first += call.counts[s], ++s) {
      Score(q, call.pages[s], call.counts[s], 0, call.head_dim, call.scale, weights + first);
    }
    const float inv_sum = 1.0f / ExpAndSum(weights, total);
    for (int64_t s = 0, first = 0; s < 2; first += call.counts[s], ++s) {
      Score(go, call.pages[s], call.counts[s], key_block, call.head_dim, 1.0f, gradients + first);
    }
    SoftmaxBackward(weights, gradients, total, inv_sum, call.scale);
    ClearFloats(sums, 4 * width);
    for (int64_t s = 0, first = 0; s < 2; first += call.counts[s], ++s) {
      AddWeighted(gradients + first, call.pages[s], call.counts[s], first, keys, width, sums);
      AddOuter(gradients + first, q, call.pages[s], call.counts[s], key_gradients, width);
      AddOuter(weights + first, go, call.pages[s], call.counts[s], value_gradients, width);
    }
    JoinChains(sums, width, call.head_dim, 1.0f, call.gq + h * call.head_dim);
  }
}

}  // namespace
}  // namespace temper::model::kernels
