#pragma once

// The forward pass of the decode engine over some rows: one token each, of any sequences. Rows do
// not see each other but through the cache, so a pass may hold any of them. No LibTorch here.

#include <cstdint>
#include <span>
#include <vector>

#include "model/decode_weights.h"
#include "model/kernels/row_kernels.h"
#include "model/kv_pages.h"
#include "model/noise_context.h"
#include "model/pass_observer.h"
#include "model/row_ops.h"

namespace temper::model {

// A token to compute, and where its keys and values go.
struct DecodeRow {
  int32_t token = 0;
  uint32_t position = 0;
  float* page = nullptr;  // that holds this position
  // The cache it attends to, this position included: [prompt, completion].
  kernels::KvSegment segments[2];
};

// Scratch memory of one thread; grows and is kept.
struct DecodeScratch {
  std::vector<float> x, normed, qkv, attended, projected, gate_up, activated, logits, attention;
  std::vector<float> operand;  // rows as a product reads them under injection; a row of a result
  std::vector<float> adapter_down, adapter_up;  // an adapter's t and u
};

struct DecodePass {
  const DecodeWeights* weights = nullptr;
  const InjectedWeights* injected = nullptr;  // null: no operand errs
  const KvPagePool* pages = nullptr;
  const RopeTable* rope = nullptr;
  const kernels::RowKernels* kernels = nullptr;
  RowNoise noise;  // of exactly these rows
  // Of each of noise.segments, the draw its norms have; null: clean.
  std::span<const NormDraw* const> norms;
  std::span<const DecodeRow> rows;  // rows of one sequence in ascending position
  PassObserver* observer = nullptr;
};

// Grows `scratch` for passes of up to `rows` rows over `positions` positions and `logit_rows` rows
// of logits, with or without injection. Throws std::bad_alloc without memory; the pass itself
// allocates nothing.
void ReserveScratch(const ModelConfig& config, int64_t rows, int64_t positions, int64_t logit_rows,
                    bool injection, DecodeScratch* scratch);

// Computes all layers; the final hidden states stay in scratch->x, [rows, hidden], before the final
// norm.
void RunDecodePass(const DecodePass& pass, DecodeScratch* scratch);

// Logits of rows first_row .. first_row + rows - 1 of the pass into scratch->logits, [rows, vocab].
void ComputeLogits(const DecodePass& pass, int64_t first_row, int64_t rows, DecodeScratch* scratch);

}  // namespace temper::model
