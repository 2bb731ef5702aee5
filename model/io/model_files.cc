#include "model/io/model_files.h"

#include <utility>

#include "model/io/loader.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kChatTemplate[] = "chat_template.jinja";

}  // namespace

absl::StatusOr<ModelFiles> LoadModelFiles(const std::string& path, bool with_chat_template) {
  TEMPER_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(path));
  TEMPER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(path));
  ModelFiles files;
  files[kConfig] = ModelConfigToJson(config);
  files[kTokenizer] = tokenizer->ToTokenizerJson();
  if (with_chat_template) {
    TEMPER_ASSIGN_OR_RETURN(const ChatTemplate chat_template, LoadChatTemplate(path));
    if (!chat_template.source.empty()) files[kChatTemplate] = chat_template.source;
  }
  TEMPER_ASSIGN_OR_RETURN(const ModelConfig again, ParseModelConfig(files[kConfig]));
  if (!(again == config)) {
    return absl::InternalError(base::Cat(path, ": its configuration reads otherwise once written"));
  }
  return files;
}

absl::StatusOr<ModelParts> ParseModelFiles(const ModelFiles& files) {
  for (const char* needed : {kConfig, kTokenizer}) {
    if (!files.contains(needed)) {
      return absl::NotFoundError(base::Cat("the model's ", needed, " is missing"));
    }
  }
  ModelParts parts;
  absl::StatusOr<ModelConfig> config = ParseModelConfig(files.at(kConfig));
  if (!config.ok()) return base::Annotate(config.status(), kConfig);
  parts.config = *std::move(config);
  auto tokenizer = Tokenizer::FromJson(files.at(kTokenizer));
  if (!tokenizer.ok()) return base::Annotate(tokenizer.status(), kTokenizer);
  parts.tokenizer = *std::move(tokenizer);
  if (const auto text = files.find(kChatTemplate); text != files.end()) {
    absl::StatusOr<ChatTemplate> chat_template = RecognizeChatTemplate(text->second);
    if (!chat_template.ok()) return base::Annotate(chat_template.status(), kChatTemplate);
    parts.chat_template = *std::move(chat_template);
  }
  return parts;
}

}  // namespace temper::model
