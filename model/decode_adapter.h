#pragma once

// The adapters of a version in the decode engine, unmerged: the base stays what it is, and every
// adapted linear gets its branch as the learner computes it (model/adapter_branch.h).

#include <array>
#include <cstdint>
#include <vector>

#include "model/io/lora_spec.h"
#include "model/parameters.h"
#include "numerics/gemm.h"
#include "numerics/site.h"

namespace temper::model {

struct DecodePass;
struct DecodeScratch;

// Immutable once packed; empty: no adapter.
struct DecodeAdapters {
  struct Module {
    numerics::PackedMatrix a;  // [rank, in]
    numerics::PackedMatrix b;  // [out, rank]
  };
  float scale = 1.0f;  // alpha / rank
  int64_t rank = 0;
  std::vector<Module> modules;
  std::vector<std::array<int32_t, 8>> module_of;  // [layer][operator]; -1: none

  const Module* Find(numerics::Operator op, int layer) const;
};

// What parameters.adapter holds.
DecodeAdapters PackAdapters(const Parameters& parameters);

// Grows `scratch` for branches of up to `rows` rows. Throws std::bad_alloc without memory.
void ReserveAdapterScratch(const DecodeAdapters& adapters, const ModelConfig& config, int64_t rows,
                           DecodeScratch* scratch);

// Adds the branch of the linear, if it has one, for all rows of the pass. x: [rows, in] contiguous;
// y: the base's result with its error and bias, row r at y + r * y_stride.
void AddAdapter(const DecodePass& pass, numerics::Operator op, int layer, const float* x, float* y,
                int64_t y_stride, DecodeScratch* scratch);

}  // namespace temper::model
