#pragma once

// The words of the generated problems: sentences with places to fill in. The vocabulary is small
// and the sentences short on purpose: a policy of half a million parameters has to read them.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace temper::prompts {

enum class StepKind { kAdd, kSubtract, kMultiply, kDivide };
inline constexpr int kStepKinds = 4;

// One calculation of a story. Places in `text`, `question` and `result`:
//   {H} who holds the running amount   {he} {He} the pronoun of {H}   {O} somebody not named before
//   {x} the objects                    {n} the operand                {=} "3 + 5 = 8" (result only)
struct StepTemplate {
  std::string_view text;
  bool moves_to_other = false;  // the running amount is {O}'s from here on
  int64_t fixed_operand = 0;    // the words say this operand ("twice"); 0: {n} does
  std::string_view
      question{};             // asks for what the step made; only as the last step. Empty: general
  std::string_view result{};  // the sentence of the solution that goes with `question`
};

struct Person {
  std::string_view name;
  std::string_view pronoun;  // in lower case
};

absl::Span<const StepTemplate> StepTemplates(StepKind kind);
absl::Span<const std::string_view> IntroTemplates();     // {H} {x} {n}
absl::Span<const std::string_view> QuestionTemplates();  // {H} {x}
absl::Span<const std::string_view> Objects();            // plural nouns
absl::Span<const Person> People();

struct Fillings {
  Person holder;
  Person other;
  std::string_view objects;
  int64_t number = 0;
  std::string_view calculation{};
};

// `text` with its places filled. A place that is not listed above is a bug of ours.
std::string Fill(std::string_view text, const Fillings& fillings);

}  // namespace temper::prompts
