#pragma once

// The reward of a GSM8K completion: three rules for the answer, whether its form was right, and the
// penalty for length. Pure functions, linear in kMaxTailBytes and the truth's length, whatever the
// completion is: this bound is what makes a deadline per sample real.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace temper::reward_server {

enum class Rule {
  kStrict,    // the form "#### 18", compatible with verl
  kFlexible,  // the last run that looks like a number, compatible with verl
  kNumeric,   // the number meant, equal as decimals
};

// "strict", "flexible", "numeric"; null for any other text.
std::optional<Rule> ParseRule(std::string_view name);
std::string_view RuleName(Rule rule);

struct ScoreResult {
  double score = 0;                      // 1 if the answer equals the truth, else 0
  std::optional<std::string> extracted;  // what was compared; null where nothing matched
};

// Scores one completion (text without special tokens, any bytes) against `truth` (the text after
// "#### " of a solution, without commas).
//   strict:   commas removed from the match, then equal as strings
//   flexible: the match as it is, equal as strings
//   numeric:  equal as decimals; 0 where the truth is not a number
ScoreResult Score(Rule rule, std::string_view completion, std::string_view truth);

// All three rules at once, and the form.
struct RuleScores {
  ScoreResult strict;
  ScoreResult flexible;
  ScoreResult numeric;
  bool format_ok = false;  // the strict pattern matched, right or wrong

  const ScoreResult& ByRule(Rule rule) const;
};
RuleScores ScoreAll(std::string_view completion, std::string_view truth);

struct OverlongOptions {
  int64_t max_completion_tokens = 0;  // L_max
  int64_t cache_tokens = 0;           // L_cache, the width of the ramp; 0: no penalty
  double factor = 0;                  // the penalty's largest size, >= 0
};

// clamp(-(len - (L_max - L_cache)) / L_cache, -1, 0) * factor, in [-factor, 0].
// completion_tokens: with end-of-sequence; an empty completion has 0.
double OverlongPenalty(int64_t completion_tokens, const OverlongOptions& options);

}  // namespace temper::reward_server
