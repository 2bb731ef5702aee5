#pragma once

// Pages of the key/value cache: each holds 16 positions of all layers, so that memory follows the
// tokens that exist and not the longest completion. No LibTorch here.

#include <cstdint>
#include <memory>
#include <vector>

#include "model/io/model_config.h"
#include "model/kernels/row_kernels.h"

namespace temper::model {

// Lends out pages of one size. Keeps what is returned for the next request and frees all at its
// end, so its size is the largest number of positions ever alive at once. Thread-compatible.
class KvPagePool final {
 public:
  explicit KvPagePool(const ModelConfig& config);

  // Contents: what was there before, or zeros; columns beyond head_dim are zero always. Throws
  // std::bad_alloc without memory.
  float* Take();
  void Return(const std::vector<float*>& pages);

  // Floats from the start of a page to a layer's first head block.
  int64_t LayerOffset(int64_t layer) const { return layer * layer_floats_; }

 private:
  int64_t layer_floats_;
  int64_t page_floats_;
  std::vector<std::unique_ptr<float[]>> owned_;
  std::vector<float*> free_;
};

// Writes one position's keys and values of one layer. k, v: [kv_heads][head_dim]. slot: position
// mod 16. layer: start of the layer's blocks in the page.
void WriteKeyValue(const float* k, const float* v, int64_t kv_heads, int64_t head_dim, int64_t slot,
                   float* layer);

}  // namespace temper::model
