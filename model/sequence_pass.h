#pragma once

// The forward pass over one recorded sequence, by the operators of the decode engine: for whoever
// wants to watch it, or the whole distribution at each position, and not to sample. Rows have the
// bits they had when the sequence was generated. No LibTorch here.

#include <cstdint>
#include <memory>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/decode_engine.h"
#include "model/pass_observer.h"
#include "numerics/noise_policy.h"

namespace temper::model {

struct SequenceRequest {
  std::span<const int32_t> ids;                   // prompt and completion, at least two
  int64_t prompt_tokens = 0;                      // 1 .. ids.size() - 1: their lane is the prompt's
  uint32_t sample = 0;                            // the lane of the others is sample + 1
  const numerics::NoisePolicy* policy = nullptr;  // null: clean. Its rows of phase kEval act
  uint64_t noise_seed = 0;                        // keys of an evaluation:
  uint64_t question = 0;                          // (noise_seed, question)
  PassObserver* observer = nullptr;               // null: nobody watches
};

// Owns a cache and scratch memory; shares the weights. Thread-compatible: one per thread.
class SequencePass final {
 public:
  explicit SequencePass(InstalledWeights weights);
  ~SequencePass();
  SequencePass(const SequencePass&) = delete;
  SequencePass& operator=(const SequencePass&) = delete;

  // Logits of the position that predicts completion token `index`, [vocab]; valid during the call.
  using LogitsVisitor = absl::FunctionRef<void(int64_t index, std::span<const float> logits)>;

  // Computes all positions but the last token's, which predicts nothing, and calls `visit` for each
  // completion token in order. Errors: InvalidArgument for ids out of range (both values),
  // prompt_tokens out of its range, or more positions than the model has; Unimplemented for a
  // policy that CheckPolicySupported refuses; ResourceExhausted without memory.
  absl::Status Run(const SequenceRequest& request, LogitsVisitor visit);
  // The same without logits: for whoever watches the layers alone.
  absl::Status Run(const SequenceRequest& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
