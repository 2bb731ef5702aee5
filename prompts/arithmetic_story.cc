#include "prompts/arithmetic_story.h"

#include "absl/strings/str_cat.h"
#include "services/base/check.h"

namespace temper::prompts {
namespace {

constexpr StepTemplate kAdd[] = {
    {.text = "{H} buys {n} more."},
    {.text = "{H} finds {n} more {x}."},
    {.text = "{O} gives {H} {n} more."},
    {.text = "Then {H} gets {n} {x}."},
    {.text = "{H} wins {n} {x}."},
    {.text = "Later {he} picks up {n} more."},
    {.text = "{O} brings {H} {n} more {x}."},
    {.text = "{He} gets {n} more from {O}."},
    {.text = "{H} makes {n} more {x}."},
    {.text = "{O} has {n} more {x} than {H}.", .moves_to_other = true},
};

constexpr StepTemplate kSubtract[] = {
    {.text = "{H} gives {n} to {O}."},
    {.text = "{He} loses {n}."},
    {.text = "{H} sells {n} of the {x}."},
    {.text = "{O} takes {n} {x} from {H}."},
    {.text = "Then {he} drops {n} {x}."},
    {.text = "{H} gives away {n}."},
    {.text = "{He} throws {n} away."},
    {.text = "{n} of the {x} get lost."},
    {.text = "{H} uses {n} {x}."},
    {.text = "{O} has {n} fewer {x} than {H}.", .moves_to_other = true},
};

constexpr StepTemplate kMultiply[] = {
    {.text = "{O} has {n} times as many {x} as {H}.", .moves_to_other = true},
    {.text = "{O} has twice as many {x} as {H}.", .moves_to_other = true, .fixed_operand = 2},
    {.text = "{O} has three times as many {x} as {H}.", .moves_to_other = true, .fixed_operand = 3},
    {.text = "{O} has {n} times that many {x}.", .moves_to_other = true},
    {.text = "{H} doubles the number of {x}.", .fixed_operand = 2},
    {.text = "Now {he} has {n} times as many."},
    {.text = "Later {H} has {n} times as many {x}."},
    {.text = "{H} sells each for {n} coins.",
     .question = "How many coins does {H} get?",
     .result = "{H} gets {=} coins."},
    {.text = "Each of the {x} costs {n} coins.",
     .question = "How many coins do the {x} cost?",
     .result = "They cost {=} coins."},
    {.text = "{n} friends each have as many {x} as {H}.",
     .question = "How many {x} do the friends have?",
     .result = "The friends have {=} {x}."},
};

constexpr StepTemplate kDivide[] = {
    {.text = "{O} has half as many {x} as {H}.", .moves_to_other = true, .fixed_operand = 2},
    {.text = "{H} loses half of the {x}.", .fixed_operand = 2},
    {.text = "{He} keeps only half of them.", .fixed_operand = 2},
    {.text = "{O} has a third as many {x} as {H}.", .moves_to_other = true, .fixed_operand = 3},
    {.text = "{H} makes {n} equal groups and keeps one."},
    {.text = "{He} splits them into {n} equal parts and keeps one part."},
    {.text = "{O} gets one of {n} equal parts.", .moves_to_other = true},
    {.text = "{H} shares them equally among {n} friends.",
     .question = "How many {x} does each friend get?",
     .result = "Each friend gets {=} {x}."},
    {.text = "{H} puts them equally into {n} boxes.",
     .question = "How many {x} are in each box?",
     .result = "Each box has {=} {x}."},
    {.text = "{n} people share them equally.",
     .question = "How many {x} does each person get?",
     .result = "Each person gets {=} {x}."},
};

constexpr std::string_view kIntro[] = {
    "{H} has {n} {x}.",           "{H} buys {n} {x}.",
    "{H} finds {n} {x} at home.", "{H} starts with {n} {x}.",
    "{H} gets {n} {x} one day.",  "At first {H} has {n} {x}.",
    "{H} makes {n} {x}.",         "There are {n} {x} in the bag of {H}.",
};

constexpr std::string_view kQuestion[] = {
    "How many {x} does {H} have now?",
    "How many {x} does {H} have?",
    "How many {x} does {H} have in the end?",
    "What is the number of {x} that {H} has now?",
};

constexpr std::string_view kObjects[] = {
    "apples", "books",  "cards", "shells", "stamps", "pens",  "balls", "eggs",
    "cakes",  "stones", "toys",  "beads",  "nuts",   "plums", "kites", "roses",
};

constexpr Person kPeople[] = {
    {"Tom", "he"},  {"Ann", "she"},  {"Ben", "he"},  {"Mia", "she"},
    {"Sam", "he"},  {"Eva", "she"},  {"Max", "he"},  {"Lily", "she"},
    {"Jack", "he"}, {"Rosa", "she"}, {"Omar", "he"}, {"Kate", "she"},
    {"Paul", "he"}, {"Nina", "she"}, {"Leo", "he"},  {"Zoe", "she"},
};

std::string Capitalized(std::string_view word) {
  std::string text(word);
  text.front() = static_cast<char>(text.front() - 'a' + 'A');
  return text;
}

std::string Filling(std::string_view place, const Fillings& fillings) {
  if (place == "H") return std::string(fillings.holder.name);
  if (place == "O") return std::string(fillings.other.name);
  if (place == "x") return std::string(fillings.objects);
  if (place == "n") return absl::StrCat(fillings.number);
  if (place == "he") return std::string(fillings.holder.pronoun);
  if (place == "He") return Capitalized(fillings.holder.pronoun);
  TEMPER_CHECK(place == "=", "a story template names a place that does not exist");
  return std::string(fillings.calculation);
}

}  // namespace

absl::Span<const StepTemplate> StepTemplates(StepKind kind) {
  switch (kind) {
    case StepKind::kAdd:
      return kAdd;
    case StepKind::kSubtract:
      return kSubtract;
    case StepKind::kMultiply:
      return kMultiply;
    case StepKind::kDivide:
      return kDivide;
  }
  return {};
}

absl::Span<const std::string_view> IntroTemplates() { return kIntro; }
absl::Span<const std::string_view> QuestionTemplates() { return kQuestion; }
absl::Span<const std::string_view> Objects() { return kObjects; }
absl::Span<const Person> People() { return kPeople; }

std::string Fill(std::string_view text, const Fillings& fillings) {
  std::string filled;
  while (true) {
    const size_t open = text.find('{');
    filled.append(text.substr(0, open));
    if (open == std::string_view::npos) return filled;
    const size_t close = text.find('}', open);
    TEMPER_CHECK(close != std::string_view::npos, "a place of a story template is not closed");
    filled.append(Filling(text.substr(open + 1, close - open - 1), fillings));
    text.remove_prefix(close + 1);
  }
}

}  // namespace temper::prompts
