#include "prompts/prompt_order.h"

#include <numeric>
#include <utility>

#include "services/base/random_key.h"

namespace temper::prompts {

std::vector<uint32_t> EpochOrder(uint64_t run_seed, uint64_t epoch, uint64_t size) {
  const uint64_t key = base::RandomKey(run_seed, base::Purpose::kPromptOrder, epoch);
  std::vector<uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0u);
  for (uint64_t i = 0; i + 1 < size; ++i) {
    const uint64_t j = i + base::UniformBelow(key, static_cast<uint32_t>(i), size - i);
    std::swap(order[i], order[j]);
  }
  return order;
}

uint64_t PromptOrder::At(uint64_t position) {
  if (size_ == 0) return position;
  const uint64_t epoch = position / size_;
  if (order_.empty() || epoch != epoch_) {
    order_ = EpochOrder(run_seed_, epoch, size_);
    epoch_ = epoch;
  }
  return order_[position % size_];
}

}  // namespace temper::prompts
