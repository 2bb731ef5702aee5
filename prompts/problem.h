#pragma once

// A word problem, its prompt, its truth. Pure functions; thread-safe.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper::prompts {

// The instruction that real GSM8K prompts end with (docs/numerics.md, "GSM8K").
inline constexpr std::string_view kGsm8kPromptSuffix =
    R"(Let's think step by step and output the final answer after "####".)";

struct Problem {
  uint64_t id = 0;          // index in its split
  std::string question;     // as the data set has it
  std::string prompt;       // the user message, before the chat template: PromptText
  std::string answer_text;  // a full solution that ends with "#### <answer>"; in a mixed corpus the
                            // answer at its end can differ from `truth`
  std::string truth;        // the expected final answer, without thousands separators
};

// question, one space, suffix; the question alone where the suffix is empty.
std::string PromptText(std::string_view question, std::string_view suffix);

// The text after the last "#### " of a solution, without commas and surrounding spaces.
// Returns: InvalidArgument if there is none, or nothing follows it.
absl::StatusOr<std::string> TruthOf(std::string_view answer_text);

// What two questions are compared by: ASCII letters in lower case, every run of other ASCII bytes
// than letters and digits as one space, none at the ends. Bytes above 127 are kept.
std::string NormalizedText(std::string_view question);

}  // namespace temper::prompts
