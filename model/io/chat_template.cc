#include "model/io/chat_template.h"

#include <vector>

#include "absl/strings/str_replace.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr std::string_view kSystemTurn = "<|im_start|>system\n";
constexpr std::string_view kAssistantTurn = "<|im_start|>assistant\n";

// Undoes the escapes of a Jinja string literal.
std::string Unescape(std::string_view literal) {
  std::string text;
  for (size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      text += literal[i];
      continue;
    }
    const char escaped = literal[++i];
    text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped == 'r' ? '\r' : escaped;
  }
  return text;
}

// The string literals of a Jinja program: between quotes, inside {{ }} and {% %} only, so that an
// apostrophe in plain text opens nothing. Text outside of both is a literal too.
std::vector<std::string> StringLiterals(std::string_view program) {
  std::vector<std::string> literals;
  bool in_code = false;
  size_t text_begin = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const std::string_view pair = program.substr(i, 2);
    if (!in_code && (pair == "{{" || pair == "{%" || pair == "{#")) {
      literals.emplace_back(program.substr(text_begin, i - text_begin));
      in_code = true;
      ++i;
    } else if (in_code && (pair == "}}" || pair == "%}" || pair == "#}")) {
      in_code = false;
      text_begin = ++i + 1;
    } else if (in_code && (program[i] == '\'' || program[i] == '"')) {
      const char quote = program[i];
      const size_t begin = ++i;
      while (i < program.size() && program[i] != quote) i += program[i] == '\\' ? 2 : 1;
      literals.push_back(
          Unescape(program.substr(begin, i < program.size() ? i - begin : std::string_view::npos)));
    }
  }
  if (!in_code && text_begin < program.size()) literals.emplace_back(program.substr(text_begin));
  return literals;
}

// The prompt of a literal that is a whole system turn.
std::optional<std::string> SystemPrompt(std::string_view literal) {
  if (!literal.starts_with(kSystemTurn)) return std::nullopt;
  literal.remove_prefix(kSystemTurn.size());
  const size_t end = literal.find(kEnd);
  if (end == std::string_view::npos || end == 0) return std::nullopt;
  return std::string(literal.substr(0, end));
}

}  // namespace

absl::StatusOr<ChatTemplate> RecognizeChatTemplate(std::string_view template_text) {
  ChatTemplate result;
  if (template_text.empty()) return result;
  result.source = std::string(template_text);
  bool starts = false, ends = false, assistant = false;
  for (const std::string& literal : StringLiterals(template_text)) {
    starts |= literal.find(kStart) != std::string::npos;
    ends |= literal.find(kEnd) != std::string::npos;
    assistant |= literal.starts_with(kAssistantTurn);
    if (!result.default_system.has_value()) result.default_system = SystemPrompt(literal);
  }
  if (!starts || !ends || !assistant) {
    const std::string beginning =
        absl::StrReplaceAll(std::string(template_text.substr(0, 80)), {{"\n", "\\n"}});
    return absl::InvalidArgumentError(base::Cat(
        "the model's chat template is not ChatML, the only one supported; it begins: ", beginning));
  }
  result.kind = ChatTemplate::Kind::kChatMl;
  return result;
}

absl::StatusOr<std::string> RenderPrompt(const ChatTemplate& chat_template,
                                         std::string_view user_message) {
  if (chat_template.kind == ChatTemplate::Kind::kPlain) return std::string(user_message);
  for (const std::string_view mark : {kStart, kEnd}) {
    if (user_message.find(mark) != std::string_view::npos) {
      return absl::InvalidArgumentError(base::Cat("the message contains ", mark));
    }
  }
  std::string prompt;
  if (chat_template.default_system.has_value()) {
    prompt = base::Cat(kSystemTurn, *chat_template.default_system, kEnd, "\n");
  }
  return base::Cat(prompt, kStart, "user\n", user_message, kEnd, "\n", kAssistantTurn);
}

}  // namespace temper::model
