#include "prompts/arithmetic_generator.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/hash.h"

namespace temper::prompts {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<ArithmeticGenerator> Make(const ArithmeticOptions& options) {
  auto generator = ArithmeticGenerator::Create(options);
  EXPECT_TRUE(generator.ok()) << generator.status();
  return *std::move(generator);
}

Problem Get(const PromptSource& source, uint64_t index) {
  auto problem = source.Get(index);
  EXPECT_TRUE(problem.ok()) << problem.status();
  return *std::move(problem);
}

// The calculations "a op b = c" of a solution, read from its text alone.
struct Calculation {
  int64_t before, operand, after;
  char sign;
  bool Holds() const {
    switch (sign) {
      case '+':
        return before + operand == after;
      case '-':
        return before - operand == after;
      case '*':
        return before * operand == after;
      default:
        return before == operand * after;
    }
  }
};

std::vector<Calculation> ReadCalculations(const std::string& solution) {
  std::vector<Calculation> found;
  const std::vector<std::string> words =
      absl::StrSplit(solution, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  for (size_t i = 1; i + 3 < words.size(); ++i) {
    if (words[i + 2] != "=") continue;
    Calculation c{.sign = words[i][0]};
    const std::string result = words[i + 3].substr(0, words[i + 3].find('.'));
    EXPECT_TRUE(absl::SimpleAtoi(words[i - 1], &c.before)) << solution;
    EXPECT_TRUE(absl::SimpleAtoi(words[i + 1], &c.operand)) << solution;
    EXPECT_TRUE(absl::SimpleAtoi(result, &c.after)) << solution;
    found.push_back(c);
  }
  return found;
}

TEST(ArithmeticGeneratorTest, SolutionsCalculateTheirTruth) {
  const auto generator = Make({.min_steps = 1, .max_steps = 4});
  std::set<size_t> step_counts;
  for (uint64_t i = 0; i < 2000; ++i) {
    const Problem problem = Get(*generator, i);
    const auto calculations = ReadCalculations(problem.answer_text);
    step_counts.insert(calculations.size());
    ASSERT_FALSE(calculations.empty()) << problem.answer_text;
    for (size_t s = 0; s < calculations.size(); ++s) {
      EXPECT_TRUE(calculations[s].Holds()) << problem.answer_text;
      const int64_t before = s > 0 ? calculations[s - 1].after : calculations[s].before;
      EXPECT_EQ(calculations[s].before, before);
      EXPECT_GE(calculations[s].after, 2);
      EXPECT_LE(calculations[s].after, 120);
    }
    EXPECT_EQ(std::to_string(calculations.back().after), problem.truth);
    EXPECT_EQ(TruthOf(problem.answer_text).value_or(""), problem.truth);
    EXPECT_EQ(problem.id, i);
  }
  EXPECT_EQ(step_counts, (std::set<size_t>{1, 2, 3, 4}));
}

TEST(ArithmeticGeneratorTest, QuestionsNameTheNumbersOfTheSolutionAndAreShort) {
  const auto generator = Make({.min_steps = 1, .max_steps = 4});
  for (uint64_t i = 0; i < 2000; ++i) {
    const Problem problem = Get(*generator, i);
    EXPECT_EQ(problem.question.find('{'), std::string::npos) << problem.question;
    EXPECT_EQ(problem.question.back(), '?');
    EXPECT_LE(std::ranges::count(problem.question, ' ') + 1,
              ArithmeticGenerator::kMaxQuestionWords);
    const auto first = ReadCalculations(problem.answer_text).front();
    EXPECT_THAT(problem.question, HasSubstr(std::to_string(first.before)));
  }
}

TEST(ArithmeticGeneratorTest, AProblemIsAFunctionOfSeedSplitAndIndex) {
  const auto a = Make({.seed = 3});
  const auto b = Make({.seed = 3});
  const auto other_seed = Make({.seed = 4});
  const auto warm = Make({.seed = 3, .split = Split::kWarmStart});
  Get(*a, 99);  // what was asked before does not matter
  int equal_to_other = 0;
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(Get(*a, i).question, Get(*b, i).question);
    EXPECT_EQ(Get(*a, i).answer_text, Get(*b, i).answer_text);
    equal_to_other += Get(*a, i).question == Get(*other_seed, i).question;
    equal_to_other += Get(*a, i).question == Get(*warm, i).question;
  }
  EXPECT_EQ(equal_to_other, 0);
}

TEST(ArithmeticGeneratorTest, EvaluationNeverMeetsTrainingOrWarmStart) {
  const auto eval = Make({.split = Split::kEval});
  std::set<std::string> held_out;
  for (uint64_t i = 0; i < 1319; ++i) held_out.insert(NormalizedText(Get(*eval, i).question));
  EXPECT_EQ(held_out.size(), 1319);  // and no question is asked twice
  for (const Split split : {Split::kTrain, Split::kWarmStart}) {
    for (const uint64_t seed : {7, 8}) {
      const auto source = Make({.seed = seed, .split = split});
      for (uint64_t i = 0; i < 4000; ++i) {
        ASSERT_EQ(held_out.count(NormalizedText(Get(*source, i).question)), 0);
      }
    }
  }
}

TEST(ArithmeticGeneratorTest, TenThousandTrainingQuestionsDiffer) {
  const auto train = Make({});
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 10000; ++i) seen.insert(base::Hash64(Get(*train, i).question));
  EXPECT_EQ(seen.size(), 10000);
}

TEST(ArithmeticGeneratorTest, TheMixedCorpusFollowsOneWrongResultToTheEnd) {
  const auto mixed = Make({.split = Split::kWarmStart, .wrong_share = 0.6});
  const auto clean = Make({.split = Split::kWarmStart, .wrong_share = 0});
  int wrong = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    const Problem problem = Get(*mixed, i);
    EXPECT_EQ(problem.question, Get(*clean, i).question);
    EXPECT_EQ(problem.truth, Get(*clean, i).truth);
    const auto calculations = ReadCalculations(problem.answer_text);
    const auto mistakes =
        std::ranges::count_if(calculations, [](const auto& c) { return !c.Holds(); });
    for (size_t s = 1; s < calculations.size(); ++s) {
      EXPECT_EQ(calculations[s].before, calculations[s - 1].after) << problem.answer_text;
    }
    const bool answers_truth = TruthOf(problem.answer_text).value_or("") == problem.truth;
    EXPECT_EQ(mistakes, answers_truth ? 0 : 1) << problem.answer_text;
    wrong += !answers_truth;
  }
  EXPECT_NEAR(wrong / 3000.0, 0.6, 0.03);
}

TEST(ArithmeticGeneratorTest, MistakesFallOnEveryStep) {
  const std::vector<ArithmeticStep> steps = {
      {.kind = StepKind::kAdd, .operand = 5, .before = 3, .after = 8},
      {.kind = StepKind::kDivide, .operand = 4, .before = 8, .after = 2}};
  std::set<std::string> endings;
  for (uint64_t choice = 0; choice < 20; ++choice) {
    const auto wrong = WithOneMistake(steps, choice);
    endings.insert(std::to_string(wrong[0].after) + "/" + std::to_string(wrong[1].after));
  }
  // No whole quarter near 8; so the mistakes that can be followed are those of the last step.
  EXPECT_EQ(endings, (std::set<std::string>{"8/1", "8/3", "8/4", "8/0", "8/12"}));
}

TEST(ArithmeticGeneratorTest, CalculatorMarksAreThoseOfGsm8k) {
  const auto generator = Make({.min_steps = 1, .max_steps = 1, .calculator_marks = true});
  const Problem problem = Get(*generator, 0);
  EXPECT_THAT(problem.answer_text,
              ::testing::ContainsRegex("[0-9]+ [-+*/] [0-9]+ = <<[0-9]+[-+*/][0-9]+=[0-9]+>>"));
}

TEST(ArithmeticGeneratorTest, PromptIsTheQuestionAndItsSuffix) {
  const Problem plain = Get(*Make({}), 5);
  EXPECT_EQ(plain.prompt, plain.question);
  const Problem asked = Get(*Make({.prompt_suffix = "Answer:"}), 5);
  EXPECT_EQ(asked.prompt, plain.question + " Answer:");
}

TEST(ArithmeticGeneratorTest, OptionsOutOfRangeAreRefused) {
  for (const ArithmeticOptions& options :
       std::vector<ArithmeticOptions>{{.min_steps = 0},
                                      {.min_steps = 3, .max_steps = 2},
                                      {.max_steps = 5},
                                      {.max_number = 1},
                                      {.max_number = 1001},
                                      {.wrong_share = 1.5},
                                      {.wrong_share = std::numeric_limits<double>::quiet_NaN()}}) {
    EXPECT_EQ(ArithmeticGenerator::Create(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(ArithmeticGeneratorTest, EveryLegalRangeOfNumbersHasProblems) {
  for (const uint32_t max_number : {2u, 3u, 5u, 7u, 1000u}) {
    for (const Split split : {Split::kTrain, Split::kEval, Split::kWarmStart}) {
      const auto source = Make({.split = split,
                                .min_steps = 1,
                                .max_steps = 4,
                                .max_number = max_number,
                                .wrong_share = 1});
      for (uint64_t i = 0; i < 200; ++i) EXPECT_TRUE(source->Get(i).ok());
    }
  }
}

TEST(ArithmeticGeneratorTest, ABoundedSplitEndsAtItsSize) {
  const auto source = Make({.problems = 10});
  EXPECT_EQ(source->size(), 10);
  EXPECT_TRUE(source->Get(9).ok());
  EXPECT_EQ(source->Get(10).status().code(), absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace temper::prompts
