#pragma once

// A model without its weights, as the few Hugging Face files by which one process tells another
// what it is: config.json, tokenizer.json and, unless prompts are plain, chat_template.jinja.
// Functions are thread-safe and keep nothing.

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/io/chat_template.h"
#include "model/io/model_config.h"
#include "model/io/tokenizer.h"

namespace temper::model {

// Texts by file name.
using ModelFiles = std::map<std::string, std::string>;

// What the files say.
struct ModelParts {
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  ChatTemplate chat_template;  // plain where there is no file of it
};

// The files of the model at `path`, a directory or a GGUF file (of which they are made; end and
// padding ids of a generation_config.json stand in config.json). with_chat_template: false leaves
// the template out, whatever the model has.
// Errors: those of model/io/loader.h; Internal if the configuration does not survive being written.
absl::StatusOr<ModelFiles> LoadModelFiles(const std::string& path, bool with_chat_template);

// Reads what LoadModelFiles made; every process of a run that reads equal files has an equal model.
// Errors: NotFound if config.json or tokenizer.json is not among them; those of ParseModelConfig,
// Tokenizer::FromJson and RecognizeChatTemplate, with the file's name.
absl::StatusOr<ModelParts> ParseModelFiles(const ModelFiles& files);

}  // namespace temper::model
