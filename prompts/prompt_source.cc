#include "prompts/prompt_source.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "prompts/arithmetic_generator.h"
#include "prompts/gsm8k_files.h"
#include "services/base/status_macros.h"

namespace temper::prompts {
namespace {

uint64_t Bounded(const PromptSource& source, uint64_t count) {
  return std::min(count, source.size().value_or(count));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PromptSource>> CreatePromptSource(const DatasetOptions& options,
                                                                 Split split) {
  if (options.name == "gsm-arith") {
    ArithmeticOptions arithmetic{.seed = options.seed,
                                 .split = split,
                                 .min_steps = options.min_steps,
                                 .max_steps = options.max_steps,
                                 .max_number = options.max_number};
    arithmetic.prompt_suffix = options.prompt_suffix.value_or("");
    if (split == Split::kWarmStart) arithmetic.wrong_share = options.wrong_share;
    if (split != Split::kEval) arithmetic.problems = options.train_problems;
    return ArithmeticGenerator::Create(std::move(arithmetic));
  }
  if (options.name == "gsm8k") {
    const std::string file = split == Split::kEval ? "test.jsonl" : "train.jsonl";
    return Gsm8kFile::Create(
        {.path = absl::StrCat(options.path, options.path.empty() ? "" : "/", file),
         .prompt_suffix = options.prompt_suffix.value_or(std::string(kGsm8kPromptSuffix)),
         .problems = split == Split::kEval ? 0 : options.train_problems});
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dataset.name is \"", options.name, "\"; known are gsm-arith and gsm8k"));
}

absl::Status CheckSeparated(const PromptSource& train, uint64_t train_count,
                            const PromptSource& eval, uint64_t eval_count) {
  std::unordered_map<std::string, uint64_t> held_out;
  for (uint64_t i = 0, n = Bounded(eval, eval_count); i < n; ++i) {
    TEMPER_ASSIGN_OR_RETURN(const Problem problem, eval.Get(i));
    held_out.emplace(NormalizedText(problem.question), i);
  }
  for (uint64_t i = 0, n = Bounded(train, train_count); i < n; ++i) {
    TEMPER_ASSIGN_OR_RETURN(const Problem problem, train.Get(i));
    const auto found = held_out.find(NormalizedText(problem.question));
    if (found == held_out.end()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("training problem ", i, " is evaluation problem ", found->second,
                     " (equal but for case and punctuation): ", problem.question.substr(0, 200)));
  }
  return absl::OkStatus();
}

}  // namespace temper::prompts
