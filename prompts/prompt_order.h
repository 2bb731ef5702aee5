#pragma once

#include <cstdint>
#include <vector>

namespace temper::prompts {

// A permutation of 0..size-1: the order of the prompts in one epoch. A keyed Fisher-Yates shuffle:
// the swap at place i draws from key (run seed, prompt order, epoch), index i, so the order is a
// pure function of its arguments. size <= 2^32. O(size).
std::vector<uint32_t> EpochOrder(uint64_t run_seed, uint64_t epoch, uint64_t size);

// Which problem the group at `position` of the prompt cursor gets, position counting on through the
// epochs: EpochOrder(run_seed, position / size, size)[position % size]; with size 0 (an unbounded
// source, whose problems are independent draws already) the position itself.
// Keeps the order of the epoch asked for last. Thread-compatible.
class PromptOrder final {
 public:
  PromptOrder(uint64_t run_seed, uint64_t size) : run_seed_(run_seed), size_(size) {}

  uint64_t At(uint64_t position);

 private:
  const uint64_t run_seed_;
  const uint64_t size_;
  uint64_t epoch_ = 0;
  std::vector<uint32_t> order_;  // of epoch_; empty: not made yet
};

}  // namespace temper::prompts
