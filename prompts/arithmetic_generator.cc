#include "prompts/arithmetic_generator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/hash.h"
#include "services/base/random_key.h"

namespace temper::prompts {
namespace {

constexpr uint64_t kEvalModulus = 8;
constexpr uint32_t kMaxTries = 100'000;  // (7/8)^100000: never reached while the options are valid
constexpr int64_t kLargestFactor = 5;
constexpr int64_t kLeastResult = 2;  // no "1 apples"
constexpr uint64_t kMaxIndex = uint64_t{1} << 32;

// The draws of one try, one after the other.
class Draws {
 public:
  explicit Draws(uint64_t key) : key_(key) {}
  uint64_t Below(uint64_t bound) { return base::UniformBelow(key_, next_++, bound); }
  template <typename Range>
  const auto& Of(const Range& range) {
    return range[Below(range.size())];
  }
  double Uniform() { return static_cast<double>(Below(uint64_t{1} << 31)) * 0x1p-31; }

 private:
  const uint64_t key_;
  uint32_t next_ = 0;
};

// before <kind> operand; null where the result is not whole.
std::optional<int64_t> Apply(StepKind kind, int64_t before, int64_t operand) {
  switch (kind) {
    case StepKind::kAdd:
      return before + operand;
    case StepKind::kSubtract:
      return before - operand;
    case StepKind::kMultiply:
      return before * operand;
    case StepKind::kDivide:
      if (before % operand != 0) return std::nullopt;
      return before / operand;
  }
  return std::nullopt;
}

// The operands that a step of this kind may have after `before`.
std::vector<int64_t> Operands(StepKind kind, int64_t before, int64_t max_number) {
  const bool additive = kind == StepKind::kAdd || kind == StepKind::kSubtract;
  const int64_t largest = additive ? max_number : std::min(kLargestFactor, max_number);
  std::vector<int64_t> operands;
  for (int64_t operand = 2; operand <= largest; ++operand) {
    const auto after = Apply(kind, before, operand);
    if (after && *after >= kLeastResult && *after <= 6 * max_number) operands.push_back(operand);
  }
  return operands;
}

struct PlannedStep {
  ArithmeticStep numbers;
  const StepTemplate* words;
};

std::vector<const StepTemplate*> FittingTemplates(StepKind kind, bool last,
                                                  const std::vector<int64_t>& operands) {
  std::vector<const StepTemplate*> fitting;
  for (const StepTemplate& words : StepTemplates(kind)) {
    if (!words.question.empty() && !last) continue;
    if (words.fixed_operand != 0 && std::ranges::count(operands, words.fixed_operand) == 0)
      continue;
    fitting.push_back(&words);
  }
  return fitting;
}

// Some kind always has operands: where nothing can be added, much can be taken away.
PlannedStep PlanStep(Draws& draws, int64_t before, bool last, int64_t max_number) {
  std::vector<std::pair<StepKind, std::vector<int64_t>>> kinds;
  for (int k = 0; k < kStepKinds; ++k) {
    auto operands = Operands(static_cast<StepKind>(k), before, max_number);
    if (!operands.empty()) kinds.emplace_back(static_cast<StepKind>(k), std::move(operands));
  }
  const auto& [kind, operands] = draws.Of(kinds);
  const StepTemplate* words = draws.Of(FittingTemplates(kind, last, operands));
  const int64_t drawn = draws.Of(operands);
  const int64_t operand = words->fixed_operand != 0 ? words->fixed_operand : drawn;
  return {.numbers = {.kind = kind,
                      .operand = operand,
                      .before = before,
                      .after = Apply(kind, before, operand).value_or(0)},
          .words = words};
}

std::string Calculation(const ArithmeticStep& step, bool calculator_marks) {
  const char sign = "+-*/"[static_cast<int>(step.kind)];
  const std::string text =
      absl::StrCat(step.before, " ", std::string(1, sign), " ", step.operand, " = ");
  if (!calculator_marks) return absl::StrCat(text, step.after);
  return absl::StrCat(text, "<<", step.before, std::string(1, sign), step.operand, "=", step.after,
                      ">>", step.after);
}

// Everything a story is made of, so that the question and any number of solutions follow from it.
struct Story {
  std::string question;
  std::vector<ArithmeticStep> steps;
  std::vector<std::string> sentences;  // of the solution, with {=} for the calculation
};

Story DrawStory(Draws& draws, const ArithmeticOptions& options) {
  std::vector<Person> people(People().begin(), People().end());
  for (size_t i = 0; i <= options.max_steps; ++i) {  // as many as can be named
    std::swap(people[i], people[i + draws.Below(people.size() - i)]);
  }
  const uint64_t step_count =
      options.min_steps + draws.Below(options.max_steps - options.min_steps + 1);
  int64_t amount = kLeastResult + static_cast<int64_t>(draws.Below(options.max_number - 1));
  Fillings fillings{
      .holder = people[0], .objects = draws.Of(Objects()), .number = amount, .calculation = "{=}"};
  Story story;
  std::vector<std::string> text = {Fill(draws.Of(IntroTemplates()), fillings)};
  std::string question;
  for (uint64_t i = 0; i < step_count; ++i) {
    const bool last = i + 1 == step_count;
    const PlannedStep step = PlanStep(draws, amount, last, options.max_number);
    fillings.other = people[i + 1];
    fillings.number = step.numbers.operand;
    text.push_back(Fill(step.words->text, fillings));
    if (step.words->moves_to_other) fillings.holder = fillings.other;
    std::string_view sentence = step.words->result;
    if (sentence.empty()) sentence = i == 0 ? "{H} has {=} {x}." : "{=}.";
    story.sentences.push_back(Fill(sentence, fillings));
    if (last) question = step.words->question;
    amount = step.numbers.after;
    story.steps.push_back(step.numbers);
  }
  if (question.empty()) question = draws.Of(QuestionTemplates());
  text.push_back(Fill(question, fillings));
  story.question = absl::StrJoin(text, " ");
  return story;
}

std::string Solution(const std::vector<std::string>& sentences,
                     const std::vector<ArithmeticStep>& steps, bool calculator_marks) {
  std::string text;
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string calculation = Calculation(steps[i], calculator_marks);
    absl::StrAppend(&text, i == 0 ? "" : " ", Fill(sentences[i], {.calculation = calculation}));
  }
  absl::StrAppend(&text, "\n#### ", steps.back().after);
  return text;
}

bool FallsTo(Split split, std::string_view question) {
  const bool held_out = base::Hash64(NormalizedText(question)) % kEvalModulus == 0;
  return held_out == (split == Split::kEval);
}

// The steps with `wrong` as the result of step `at`, or null if a step behind cannot follow it.
std::optional<std::vector<ArithmeticStep>> Follow(std::vector<ArithmeticStep> steps, size_t at,
                                                  int64_t wrong) {
  if (wrong < 0) return std::nullopt;
  steps[at].after = wrong;
  for (size_t i = at + 1; i < steps.size(); ++i) {
    steps[i].before = steps[i - 1].after;
    const auto after = Apply(steps[i].kind, steps[i].before, steps[i].operand);
    if (!after || *after < 0) return std::nullopt;
    steps[i].after = *after;
  }
  return steps;
}

}  // namespace

std::vector<ArithmeticStep> WithOneMistake(std::vector<ArithmeticStep> steps, uint64_t choice) {
  constexpr int64_t kErrors[] = {1, -1, 2, -2, 10, -10};
  std::vector<std::vector<ArithmeticStep>> possible;
  for (size_t at = 0; at < steps.size(); ++at) {
    for (const int64_t error : kErrors) {
      auto followed = Follow(steps, at, steps[at].after + error);
      if (followed) possible.push_back(*std::move(followed));
    }
  }
  return possible[choice % possible.size()];
}

absl::StatusOr<std::unique_ptr<ArithmeticGenerator>> ArithmeticGenerator::Create(
    ArithmeticOptions options) {
  if (options.min_steps < 1 || options.max_steps < options.min_steps || options.max_steps > 4) {
    return absl::InvalidArgumentError(absl::StrCat("dataset.min_steps is ", options.min_steps,
                                                   " and dataset.max_steps ", options.max_steps,
                                                   "; 1 <= min_steps <= max_steps <= 4 is needed"));
  }
  if (options.max_number < 2 || options.max_number > 1000) {
    return absl::InvalidArgumentError(
        absl::StrCat("dataset.max_number is ", options.max_number, "; 2 to 1000 is needed"));
  }
  if (!(options.wrong_share >= 0 && options.wrong_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("dataset.wrong_share is ", options.wrong_share, "; 0 to 1 is needed"));
  }
  return std::unique_ptr<ArithmeticGenerator>(new ArithmeticGenerator(std::move(options)));
}

std::optional<uint64_t> ArithmeticGenerator::size() const {
  if (options_.problems == 0) return std::nullopt;
  return options_.problems;
}

absl::StatusOr<Problem> ArithmeticGenerator::Get(uint64_t index) const {
  if (index >= size().value_or(kMaxIndex)) {
    return absl::OutOfRangeError(
        absl::StrCat("problem ", index, " of ", size().value_or(kMaxIndex), " was asked for"));
  }
  for (uint32_t attempt = 0; attempt < kMaxTries; ++attempt) {
    const uint64_t subscope = (static_cast<uint64_t>(options_.split) << 32) | attempt;
    Draws draws(base::RandomKey(options_.seed, base::Purpose::kDataset, index, subscope));
    Story story = DrawStory(draws, options_);
    if (std::ranges::count(story.question, ' ') >= kMaxQuestionWords) continue;
    if (!FallsTo(options_.split, story.question)) continue;
    const int64_t truth = story.steps.back().after;
    const bool mistaken = draws.Uniform() < options_.wrong_share;
    const uint64_t choice = draws.Below(uint64_t{1} << 31);
    const auto steps = mistaken ? WithOneMistake(story.steps, choice) : story.steps;
    return Problem{.id = index,
                   .question = story.question,
                   .prompt = PromptText(story.question, options_.prompt_suffix),
                   .answer_text = Solution(story.sentences, steps, options_.calculator_marks),
                   .truth = absl::StrCat(truth)};
  }
  return absl::InternalError(absl::StrCat("no draw for problem ", index, " was accepted"));
}

}  // namespace temper::prompts
