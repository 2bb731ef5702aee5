#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.h"
#include "model/io/loader.h"
#include "services/base/status_macros.h"

namespace temper::cli {
namespace {

// Standard input byte for byte: no newline stripped, no special token added, the text of special
// tokens parsed.
absl::Status Tokenize(const std::string& model) {
  TEMPER_ASSIGN_OR_RETURN(const auto tokenizer, model::LoadTokenizer(model));
  const std::string text((std::istreambuf_iterator<char>(std::cin)),
                         std::istreambuf_iterator<char>());
  TEMPER_ASSIGN_OR_RETURN(const auto ids, tokenizer->Encode(text, /*parse_special=*/true));
  std::printf("%s\n", nlohmann::json(ids).dump().c_str());
  return absl::OkStatus();
}

}  // namespace

CommandBody AddTokenizeCommand(CLI::App* app) {
  CLI::App* command =
      app->add_subcommand("tokenize", "Print the token ids of standard input as a JSON list");
  auto model = std::make_shared<std::string>();
  command->add_option("model", *model, "Hugging Face directory or .gguf file")->required();
  return [model] { return Tokenize(*model); };
}

}  // namespace temper::cli
