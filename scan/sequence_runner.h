#pragma once

// Recorded sequences, and passes over all of them on several threads.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/decode_engine.h"
#include "model/sequence_pass.h"
#include "model/thread_pool.h"

namespace temper::scan {

// A prompt and what followed it. Its place in a list is its question in keys.
struct Sequence {
  std::vector<int32_t> ids;
  int64_t prompt_tokens = 0;
};

// 16 hexadecimal digits that differ where any token does.
std::string HashSequences(std::span<const Sequence> sequences);

// Appends to every sequence that ends with its prompt a completion of up to `tokens` tokens at
// temperature 1, keyed by (seed, question). Errors: those of DecodeEngine::Generate.
absl::Status Complete(model::DecodeEngine* engine, const std::vector<int32_t>& stop_ids,
                      uint32_t tokens, uint64_t seed, std::vector<Sequence>* sequences);

// Sequence i is always run by worker i mod workers(), so what a worker adds up does not depend on
// timing. Thread-compatible; owns its threads and their caches, shares the weights.
class SequenceRunner final {
 public:
  // threads >= 1.
  SequenceRunner(model::InstalledWeights weights, int threads);

  int workers() const { return static_cast<int>(passes_.size()); }
  // The first error in the order of the sequences.
  using Body = absl::FunctionRef<absl::Status(model::SequencePass* pass, size_t index, int worker)>;
  absl::Status Run(size_t sequences, Body body);

 private:
  std::vector<std::unique_ptr<model::SequencePass>> passes_;
  model::ThreadPool threads_;
};

}  // namespace temper::scan
