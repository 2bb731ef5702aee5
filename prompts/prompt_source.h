#pragma once

// Where problems come from: a folder of GSM8K files, or the seeded generator.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "prompts/problem.h"

namespace temper::prompts {

// What the problems are for. Evaluation shares no question with the other two.
enum class Split {
  kTrain,      // reinforcement learning
  kEval,       // held out
  kWarmStart,  // supervised: solutions are read, and may be mixed with wrong ones
};

struct DatasetOptions {
  std::string name = "gsm-arith";            // "gsm-arith" (generator) or "gsm8k" (files)
  std::string path;                          // gsm8k: the folder with train.jsonl and test.jsonl
  std::optional<std::string> prompt_suffix;  // default: kGsm8kPromptSuffix for gsm8k, else empty
  uint64_t train_problems = 0;               // first so many of train and warm start; 0: all

  // The rest is for gsm-arith (arithmetic_generator.h).
  uint64_t seed = 7;
  uint32_t min_steps = 2;
  uint32_t max_steps = 3;
  uint32_t max_number = 20;
  double wrong_share = 0.6;
};

// One split. Immutable and thread-safe once created.
class PromptSource {
 public:
  virtual ~PromptSource() = default;

  // Number of problems; null: unbounded (every index below 2^32 has one).
  virtual std::optional<uint64_t> size() const = 0;

  // Problem `index`, a pure function of the options, the split and the index; `id` is the index.
  // Returns: OutOfRange for an index at or behind the size.
  virtual absl::StatusOr<Problem> Get(uint64_t index) const = 0;
};

// Returns: InvalidArgument (unknown name, options out of range, the files of gsm8k are not there),
// DataLoss (a line of them is broken; names file and line), ResourceExhausted (a limit of
// gsm8k_files.h).
absl::StatusOr<std::unique_ptr<PromptSource>> CreatePromptSource(const DatasetOptions& options,
                                                                 Split split);

// Compares the first `train_count` problems of `train` with the first `eval_count` of `eval` (fewer
// where the source is shorter) by NormalizedText.
// Returns: InvalidArgument naming both problems at the first question they share; what Get returns.
absl::Status CheckSeparated(const PromptSource& train, uint64_t train_count,
                            const PromptSource& eval, uint64_t eval_count);

}  // namespace temper::prompts
