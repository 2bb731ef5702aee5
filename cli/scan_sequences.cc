#include "cli/scan_sequences.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/json_lines.h"
#include "model/io/loader.h"
#include "prompts/prompt_source.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

struct Text {
  std::string prompt;
  std::string completion;  // empty: to be generated
};

absl::StatusOr<Text> TextOf(const nlohmann::json& line) {
  const auto text = [&](const char* key) -> std::string {
    return line.contains(key) && line[key].is_string() ? line[key].get<std::string>() : "";
  };
  Text result = {.prompt = text("prompt"), .completion = text("completion")};
  if (result.prompt.empty() && !text("question").empty()) {
    result.prompt = prompts::PromptText(text("question"), prompts::kGsm8kPromptSuffix);
  }
  if (result.prompt.empty()) {
    return absl::InvalidArgumentError("needs the text \"prompt\" or \"question\"");
  }
  return result;
}

absl::StatusOr<std::vector<Text>> ReadTexts(const PromptOptions& options) {
  std::vector<Text> texts;
  if (options.data.empty()) {
    TEMPER_ASSIGN_OR_RETURN(const auto source,
                            prompts::CreatePromptSource({}, prompts::Split::kEval));
    for (uint64_t i = 0; i < options.count; ++i) {
      TEMPER_ASSIGN_OR_RETURN(prompts::Problem problem, source->Get(i));
      texts.push_back({.prompt = std::move(problem.prompt), .completion = {}});
    }
    return texts;
  }
  std::error_code error;
  const std::string path = std::filesystem::is_directory(options.data, error)
                               ? options.data + "/train.jsonl"
                               : options.data;
  TEMPER_RETURN_IF_ERROR(ForEachJsonLine(path, [&](const nlohmann::json& line) -> absl::Status {
    if (texts.size() >= options.count) return absl::OkStatus();
    TEMPER_ASSIGN_OR_RETURN(Text text, TextOf(line));
    texts.push_back(std::move(text));
    return absl::OkStatus();
  }));
  if (texts.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no prompt"));
  return texts;
}

}  // namespace

absl::StatusOr<std::vector<scan::Sequence>> LoadPrompts(const PromptOptions& options) {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<Text> texts, ReadTexts(options));
  TEMPER_ASSIGN_OR_RETURN(const auto tokenizer, model::LoadTokenizer(options.model));
  TEMPER_ASSIGN_OR_RETURN(const model::ChatTemplate chat, model::LoadChatTemplate(options.model));
  const bool parse_special = chat.kind != model::ChatTemplate::Kind::kPlain;
  std::vector<scan::Sequence> sequences;
  for (const Text& text : texts) {
    TEMPER_ASSIGN_OR_RETURN(const std::string rendered, model::RenderPrompt(chat, text.prompt));
    scan::Sequence sequence;
    TEMPER_ASSIGN_OR_RETURN(sequence.ids, tokenizer->Encode(rendered, parse_special));
    sequence.prompt_tokens = static_cast<int64_t>(sequence.ids.size());
    if (sequence.ids.empty() ||
        (options.max_prompt_tokens > 0 && sequence.prompt_tokens > options.max_prompt_tokens)) {
      return absl::InvalidArgumentError(absl::StrCat("prompt ", sequences.size(), " has ",
                                                     sequence.prompt_tokens, " tokens; 1 .. ",
                                                     options.max_prompt_tokens, " fit the model"));
    }
    TEMPER_ASSIGN_OR_RETURN(const std::vector<int32_t> completion,
                            tokenizer->Encode(text.completion, /*parse_special=*/false));
    sequence.ids.insert(sequence.ids.end(), completion.begin(), completion.end());
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

}  // namespace temper::cli
