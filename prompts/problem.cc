#include "prompts/problem.h"

#include "absl/strings/ascii.h"

namespace temper::prompts {
namespace {

constexpr std::string_view kAnswerMark = "#### ";

}  // namespace

std::string PromptText(std::string_view question, std::string_view suffix) {
  if (suffix.empty()) return std::string(question);
  return std::string(question) + " " + std::string(suffix);
}

absl::StatusOr<std::string> TruthOf(std::string_view answer_text) {
  const size_t mark = answer_text.rfind(kAnswerMark);
  if (mark == std::string_view::npos) {
    return absl::InvalidArgumentError("the solution has no \"#### \" before a final answer");
  }
  std::string truth(answer_text.substr(mark + kAnswerMark.size()));
  absl::StripAsciiWhitespace(&truth);
  std::erase(truth, ',');
  if (truth.empty()) {
    return absl::InvalidArgumentError("nothing follows the last \"#### \" of the solution");
  }
  return truth;
}

std::string NormalizedText(std::string_view question) {
  std::string text;
  text.reserve(question.size());
  bool gap = false;
  for (const char c : question) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 128 && !absl::ascii_isalnum(byte)) {
      gap = true;
      continue;
    }
    if (gap && !text.empty()) text.push_back(' ');
    gap = false;
    text.push_back(absl::ascii_tolower(byte));
  }
  return text;
}

}  // namespace temper::prompts
