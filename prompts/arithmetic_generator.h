#pragma once

// Word problems in GSM8K form, made from a seed: somebody has some things, one to four steps change
// the amount, a question asks for it.
//
//   Tom has 3 apples. He gets 5 more from Mia. Kate has twice as many apples as Tom. How many
//   apples does Kate have now?
//   -> "Tom has 3 + 5 = 8 apples. 8 * 2 = 16.\n#### 16"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prompts/arithmetic_story.h"
#include "prompts/prompt_source.h"

namespace temper::prompts {

struct ArithmeticOptions {
  uint64_t seed = 7;
  Split split = Split::kTrain;
  uint32_t min_steps = 2;    // 1..4
  uint32_t max_steps = 3;    // min_steps..4; each number of steps is as likely
  uint32_t max_number = 20;  // 2..1000: largest start, addend, subtrahend. Factors and divisors are
                             // 2..5, results 2..6 * max_number
  double wrong_share = 0;    // 0..1: share of solutions in which one result is wrong and followed
                             // to the end, as scraped text would; `truth` stays right
  bool calculator_marks = false;  // "3 + 5 = <<3+5=8>>8" as GSM8K's files have, else "3 + 5 = 8"
  std::string prompt_suffix;      // after the question; empty: none
  uint64_t problems = 0;          // size of the split; 0: unbounded
};

// One calculation, in numbers: before <kind> operand = after.
struct ArithmeticStep {
  StepKind kind;
  int64_t operand;
  int64_t before;
  int64_t after;
};

// Problem `index` of a split draws from key (seed, dataset, index, split and try) until a draw is
// at most kMaxQuestionWords long and falls to the split: evaluation takes the questions whose
// NormalizedText hashes to 0 mod 8 (XXH3-64), training and warm start the others. So no evaluation
// problem can occur in the others, for any seed. Within a split a question may come twice; with the
// default options that is rare (none in the first 10,000 of seed 7).
// Immutable, thread-safe; Get takes microseconds and keeps nothing.
class ArithmeticGenerator final : public PromptSource {
 public:
  static constexpr int kMaxQuestionWords = 45;

  // Returns: InvalidArgument if an option is outside its range.
  static absl::StatusOr<std::unique_ptr<ArithmeticGenerator>> Create(ArithmeticOptions options);

  std::optional<uint64_t> size() const override;
  absl::StatusOr<Problem> Get(uint64_t index) const override;

 private:
  explicit ArithmeticGenerator(ArithmeticOptions options) : options_(std::move(options)) {}
  const ArithmeticOptions options_;
};

// Makes the result of one step wrong and carries it through the steps behind it: where they would
// still have whole results of at least 0. choice: any number; picks step and error among the
// possible ones. At least one is always possible: the last step's. Pure.
std::vector<ArithmeticStep> WithOneMistake(std::vector<ArithmeticStep> steps, uint64_t choice);

}  // namespace temper::prompts
