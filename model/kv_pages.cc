#include "model/kv_pages.h"

#include <algorithm>

namespace temper::model {

KvPagePool::KvPagePool(const ModelConfig& config)
    : layer_floats_(config.num_kv_heads * kernels::HeadBlockFloats(config.head_dim)),
      page_floats_(layer_floats_ * config.num_layers) {}

float* KvPagePool::Take() {
  if (free_.empty()) {
    owned_.push_back(std::make_unique<float[]>(static_cast<size_t>(page_floats_)));
    free_.push_back(owned_.back().get());
  }
  float* page = free_.back();
  free_.pop_back();
  return page;
}

void KvPagePool::Return(const std::vector<float*>& pages) {
  free_.insert(free_.end(), pages.begin(), pages.end());
}

void WriteKeyValue(const float* k, const float* v, int64_t kv_heads, int64_t head_dim, int64_t slot,
                   float* layer) {
  const int64_t width = kernels::PaddedHeadDim(head_dim);
  for (int64_t h = 0; h < kv_heads; ++h) {
    float* keys = layer + h * kernels::HeadBlockFloats(head_dim);
    for (int64_t d = 0; d < head_dim; ++d) {
      keys[d * kernels::kPagePositions + slot] = k[h * head_dim + d];
    }
    float* values = keys + kernels::KeyBlockFloats(head_dim) + slot * width;
    std::copy_n(v + h * head_dim, head_dim, values);
  }
}

}  // namespace temper::model
