#include "reward_server/scoring.h"

#include <algorithm>

#include "reward_server/answer_extraction.h"

namespace temper::reward_server {
namespace {

ScoreResult ScoreStrict(std::string_view tail, std::string_view truth) {
  const auto match = ExtractStrict(tail);
  if (!match) return {};
  std::string answer(*match);
  std::erase(answer, ',');
  const double score = answer == truth ? 1 : 0;
  return {.score = score, .extracted = std::move(answer)};
}

ScoreResult ScoreFlexible(std::string_view tail, std::string_view truth) {
  const auto match = ExtractFlexible(tail);
  if (!match) return {};
  return {.score = *match == truth ? 1.0 : 0.0, .extracted = std::string(*match)};
}

ScoreResult ScoreNumeric(std::string_view tail, std::string_view truth) {
  auto number = ExtractNumber(tail);
  if (!number) return {};
  const auto wanted = ParseNumber(truth);
  const bool equal = wanted && EqualDecimals(*number, *wanted);
  return {.score = equal ? 1.0 : 0.0, .extracted = std::move(number)};
}

}  // namespace

std::optional<Rule> ParseRule(std::string_view name) {
  for (Rule rule : {Rule::kStrict, Rule::kFlexible, Rule::kNumeric}) {
    if (name == RuleName(rule)) return rule;
  }
  return std::nullopt;
}

std::string_view RuleName(Rule rule) {
  switch (rule) {
    case Rule::kStrict:
      return "strict";
    case Rule::kFlexible:
      return "flexible";
    case Rule::kNumeric:
      return "numeric";
  }
  return "unknown";
}

ScoreResult Score(Rule rule, std::string_view completion, std::string_view truth) {
  const std::string_view tail = Tail(completion);
  switch (rule) {
    case Rule::kStrict:
      return ScoreStrict(tail, truth);
    case Rule::kFlexible:
      return ScoreFlexible(tail, truth);
    case Rule::kNumeric:
      return ScoreNumeric(tail, truth);
  }
  return {};
}

const ScoreResult& RuleScores::ByRule(Rule rule) const {
  switch (rule) {
    case Rule::kFlexible:
      return flexible;
    case Rule::kNumeric:
      return numeric;
    case Rule::kStrict:
      break;
  }
  return strict;
}

RuleScores ScoreAll(std::string_view completion, std::string_view truth) {
  const std::string_view tail = Tail(completion);
  RuleScores scores{.strict = ScoreStrict(tail, truth),
                    .flexible = ScoreFlexible(tail, truth),
                    .numeric = ScoreNumeric(tail, truth)};
  scores.format_ok = scores.strict.extracted.has_value();
  return scores;
}

double OverlongPenalty(int64_t completion_tokens, const OverlongOptions& options) {
  if (options.cache_tokens <= 0) return 0;
  const double excess =
      static_cast<double>(completion_tokens) - (static_cast<double>(options.max_completion_tokens) -
                                                static_cast<double>(options.cache_tokens));
  const double share = excess / static_cast<double>(options.cache_tokens);
  return 0 - std::clamp(share, 0.0, 1.0) * options.factor;
}

}  // namespace temper::reward_server
