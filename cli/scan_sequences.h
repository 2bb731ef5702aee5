#pragma once

// The tokens that `temper scan` runs a model on.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scan/sequence_runner.h"

namespace temper::cli {

struct PromptOptions {
  std::string model;  // tokenizer and chat template
  // JSON lines, or a folder with GSM8K's train.jsonl; empty: the built-in generator's problems.
  // A line has "prompt" (taken as it is) or "question" (GSM8K's instruction is added), and may have
  // "completion": a recorded one in place of one that is generated.
  std::string data;
  size_t count = 8;
  int64_t max_prompt_tokens = 0;  // longer prompts are refused; 0: no limit
};

// The first `count` prompts, some with their completions. InvalidArgument: no such file, no prompt
// in it, a prompt without tokens or too long; DataLoss as ForEachJsonLine; errors of the loader.
absl::StatusOr<std::vector<scan::Sequence>> LoadPrompts(const PromptOptions& options);

}  // namespace temper::cli
