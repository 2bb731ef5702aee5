#pragma once

// RUN/samples/step_N.jsonl: what was sampled, one JSON object per group that step N closed.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "learner/group_store.h"
#include "model/io/tokenizer.h"

namespace temper::learner {

// Writes the file whole, or not at all; one that exists is replaced. Groups in ascending
// group_index, each with ending, prompt, truth, versions, and per completion text, tokens, reward,
// scores and the parsed answer. Equal runs write equal files but for `worker` and *_seconds.
// Errors: those of WriteFileAtomically; InvalidArgument for tokens the tokenizer does not know.
absl::Status WriteSamples(const std::string& run_dir, uint64_t step, const ClosedBatch& batch,
                          const model::Tokenizer& tokenizer);

}  // namespace temper::learner
