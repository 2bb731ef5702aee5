#include "reward_server/scoring.h"

#include <algorithm>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "reward_server/answer_extraction.h"

namespace temper::reward_server {
namespace {

struct Case {
  std::string completion;
  std::string truth;
  double score;
  std::optional<std::string> extracted;
};

void ExpectCases(Rule rule, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const ScoreResult result = Score(rule, c.completion, c.truth);
    EXPECT_EQ(result.score, c.score) << RuleName(rule) << " of: " << c.completion;
    EXPECT_EQ(result.extracted, c.extracted) << RuleName(rule) << " of: " << c.completion;
  }
}

TEST(ScoringTest, StrictTakesTheLastExactForm) {
  ExpectCases(Rule::kStrict, {
                                 {"#### 18", "18", 1, "18"},
                                 {"##### 18", "18", 1, "18"},
                                 {"#### 18 dollars", "18", 1, "18"},
                                 {"#### $18", "18", 0, std::nullopt},
                                 {"####18", "18", 0, std::nullopt},
                                 {"####  18", "18", 0, std::nullopt},
                                 {"#### **18**", "18", 0, std::nullopt},
                                 {"#### 18.", "18", 0, "18."},
                                 {"#### 18.00", "18", 0, "18.00"},
                                 {"#### 1,000", "1000", 1, "1000"},
                                 {"#### -5", "-5", 1, "-5"},
                                 {"#### 3\n#### 18", "18", 1, "18"},
                                 {"#### 18\n#### none", "18", 1, "18"},
                                 {"#### -", "5", 0, std::nullopt},
                                 {"#### --5", "5", 0, std::nullopt},
                                 {"", "18", 0, std::nullopt},
                                 {"####", "18", 0, std::nullopt},
                                 {"#### ", "18", 0, std::nullopt},
                             });
}

TEST(ScoringTest, FlexibleTakesTheLastRunThatIsNotADot) {
  ExpectCases(Rule::kFlexible, {
                                   {"#### $18", "18", 1, "18"},
                                   {"####18", "18", 1, "18"},
                                   {"\\boxed{18}", "18", 1, "18"},
                                   {"18.", "18", 0, "18."},
                                   {"#### 1,000", "1000", 0, "1,000"},
                                   {"18 , yes", "18", 0, ","},
                                   {"It is 18 . ", "18", 1, "18"},
                                   {"20-2", "-2", 1, "-2"},
                                   {"no number . at . all", "18", 0, std::nullopt},
                                   {"", "18", 0, std::nullopt},
                               });
}

TEST(ScoringTest, NumericTakesTheNumberThatIsMeant) {
  ExpectCases(Rule::kNumeric, {
                                  {"#### $18", "18", 1, "18"},
                                  {"####18", "18", 1, "18"},
                                  {"####  18", "18", 1, "18"},
                                  {"#### **18**", "18", 1, "18"},
                                  {"#### 18.", "18", 1, "18"},
                                  {"#### 18.00", "18", 1, "18.00"},
                                  {"#### 1,000", "1000", 1, "1000"},
                                  {"#### $1,234,567.50", "1234567.5", 1, "1234567.50"},
                                  {"#### \xE2\x82\xAC 18", "18", 1, "18"},
                                  {"#### -$18", "-18", 1, "-18"},
                                  {"#### 18 dollars, 2 left", "18", 1, "18"},
                                  {"#### 18, 20", "18", 1, "18"},
                                  {"so 5 and 18, done", "18", 1, "18"},
                                  {"20 - 2 = 18", "18", 1, "18"},
                                  {"3-5", "5", 1, "5"},
                                  {"from 7 to -5", "-5", 1, "-5"},
                                  {"the total is 18\n####", "18", 1, "18"},
                                  {"#### 3\n#### 018", "18", 1, "018"},
                                  {"#### .5", "0.5", 1, ".5"},
                                  {"#### -0", "0", 1, "-0"},
                                  {"#### 18", "eighteen", 0, "18"},
                                  {"#### none", "18", 0, std::nullopt},
                                  {"", "18", 0, std::nullopt},
                              });
}

TEST(ScoringTest, CommasThatDoNotCutGroupsOfThreeEndTheNumber) {
  EXPECT_EQ(ExtractNumber("#### 1,00"), "1");
  EXPECT_EQ(ExtractNumber("#### 1,0000"), "1");
  EXPECT_EQ(ExtractNumber("#### 2024,100"), "2024");
}

TEST(ScoringTest, FormatIsTheStrictMatchRightOrWrong) {
  EXPECT_TRUE(ScoreAll("#### 7", "18").format_ok);
  EXPECT_FALSE(ScoreAll("#### $18", "18").format_ok);
  const RuleScores scores = ScoreAll("#### $18", "18");
  EXPECT_EQ(scores.ByRule(Rule::kStrict).score, 0);
  EXPECT_EQ(scores.ByRule(Rule::kFlexible).score, 1);
  EXPECT_EQ(scores.ByRule(Rule::kNumeric).score, 1);
}

TEST(ScoringTest, TailIsThreeHundredCodePointsNotBytes) {
  std::string euros;
  for (int i = 0; i < 293; ++i) euros += "\xE2\x82\xAC";
  EXPECT_EQ(Score(Rule::kStrict, "#### 18" + euros, "18").score, 1);
  EXPECT_EQ(Score(Rule::kStrict, "#### 18" + euros + "x", "18").score, 0);
  EXPECT_EQ(Tail("ab" + euros).size(), 2 + 3 * 293);
}

TEST(ScoringTest, TailOfMalformedUtf8CountsEachStrayByte) {
  EXPECT_EQ(Tail(std::string(1000, '\x80')).size(), kTailCodePoints);
  EXPECT_EQ(Tail(std::string(1000, '\xE2')).size(), kTailCodePoints);
  EXPECT_EQ(Tail(std::string(1000, '\xFF')).size(), kTailCodePoints);
  const std::string overlong_lead = std::string("\xC0\x80") + std::string(299, 'a');
  EXPECT_EQ(Tail(overlong_lead).size(), 300);  // \xC0 leads nothing: two stray bytes
  const std::string nul("#### 18\0\0", 9);
  EXPECT_EQ(Score(Rule::kStrict, nul, "18").score, 1);
}

TEST(ScoringTest, AHugeCompletionIsScoredByItsTail) {
  std::string huge(64 << 20, '#');
  EXPECT_EQ(Score(Rule::kStrict, huge + " 18", "18").score, 1);
  EXPECT_EQ(Score(Rule::kNumeric, huge + "18", "18").score, 1);
  EXPECT_LE(Tail(huge).size(), kMaxTailBytes);
}

TEST(ScoringTest, DecimalsAreComparedExactlyAtAnyLength) {
  EXPECT_TRUE(EqualDecimals("0018.500", "18.5"));
  EXPECT_TRUE(EqualDecimals("-0.0", "0"));
  EXPECT_FALSE(EqualDecimals("-1", "1"));
  EXPECT_FALSE(EqualDecimals("90071992547409920", "90071992547409921"));
  EXPECT_EQ(ParseNumber("$1,000."), "1000");
  EXPECT_EQ(ParseNumber("18 apples"), std::nullopt);
  EXPECT_EQ(ParseNumber(""), std::nullopt);
}

TEST(ScoringTest, OverlongPenaltyIsARampOfTheCacheWidth) {
  const OverlongOptions options{.max_completion_tokens = 1024, .cache_tokens = 256, .factor = 0.5};
  EXPECT_EQ(OverlongPenalty(0, options), 0);
  EXPECT_EQ(OverlongPenalty(768, options), 0);
  EXPECT_EQ(OverlongPenalty(896, options), -0.25);
  EXPECT_EQ(OverlongPenalty(1024, options), -0.5);
  EXPECT_EQ(OverlongPenalty(5000, options), -0.5);
  EXPECT_EQ(OverlongPenalty(5000, {.max_completion_tokens = 1024, .factor = 1}), 0);
}

TEST(ScoringTest, RuleNamesAreReadBack) {
  for (Rule rule : {Rule::kStrict, Rule::kFlexible, Rule::kNumeric}) {
    EXPECT_EQ(ParseRule(RuleName(rule)), rule);
  }
  EXPECT_EQ(ParseRule("lenient"), std::nullopt);
}

// The patterns as verl writes them, through std::regex: the independent reference.
std::vector<std::string> FindAll(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
    found.push_back((*it)[1]);
  }
  return found;
}

std::optional<std::string> ReferenceStrict(const std::string& text) {
  static const std::regex pattern("#### (-?[0-9.,]+)");
  auto found = FindAll(text, pattern);
  if (found.empty()) return std::nullopt;
  std::erase(found.back(), ',');
  return found.back();
}

std::optional<std::string> ReferenceFlexible(const std::string& text) {
  static const std::regex pattern("(-?[0-9.,]+)");
  const auto found = FindAll(text, pattern);
  const auto last =
      std::find_if(found.rbegin(), found.rend(), [](const auto& run) { return run != "."; });
  if (last == found.rend()) return std::nullopt;
  return *last;
}

// Python's s[-300:] on text that is well-formed UTF-8.
std::string ReferenceTail(const std::string& text) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) starts.push_back(i);
  }
  if (starts.size() <= 300) return text;
  return text.substr(starts[starts.size() - 300]);
}

TEST(ScoringTest, AgreesWithTheRegexReferenceOnRandomText) {
  const std::vector<std::string> pieces = {
      "#", "##", "####",         "#### ",           " ", "-", ".", ",", "1", "8", "00", "$", "x",
      "*", "\n", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
  std::mt19937 random(20240611);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    const size_t count = random() % (round % 10 == 0 ? 500 : 14);
    for (size_t i = 0; i < count; ++i) text += pieces[random() % pieces.size()];
    const std::string tail = ReferenceTail(text);
    ASSERT_EQ(Tail(text), tail);
    ASSERT_EQ(Score(Rule::kStrict, text, "18").extracted, ReferenceStrict(tail)) << text;
    ASSERT_EQ(Score(Rule::kFlexible, text, "18").extracted, ReferenceFlexible(tail)) << text;
  }
}

TEST(ScoringTest, RandomBytesNeverBreakARule) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    std::string text(random() % 600, '\0');
    for (char& c : text) c = static_cast<char>(random());
    const RuleScores scores = ScoreAll(text, "18");
    ASSERT_LE(Tail(text).size(), kMaxTailBytes);
    const std::string number = scores.numeric.extracted.value_or("0");
    ASSERT_TRUE(ParseNumber(number)) << number;
  }
}

}  // namespace
}  // namespace temper::reward_server
