#pragma once

// Turns one user message into the text a chat model was trained to answer.
//
// A chat template is a Jinja program. Temper runs none: it reads the string literals of the program
// and recognises ChatML (Qwen2, Qwen2.5, Qwen3, SmolLM2), with the default system prompt that
// stands in the program itself. Anything else is refused rather than guessed.

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper::model {

struct ChatTemplate {
  enum class Kind {
    kPlain,   // the message itself is the prompt: a base model, or the embedded policy
    kChatMl,  // <|im_start|>role\ncontent<|im_end|>\n
  };
  Kind kind = Kind::kPlain;
  // ChatML: the system prompt rendered when the caller gives none; nullopt: no system turn.
  std::optional<std::string> default_system;
  std::string source;  // the template's own text, to be saved with the model; empty for plain
};

// Recognises a template. Empty text is plain.
// Errors: InvalidArgument, with the template's beginning, if it is not ChatML or uses names this
// reader does not know how to render.
absl::StatusOr<ChatTemplate> RecognizeChatTemplate(std::string_view template_text);

// The prompt for one user message, ending where the assistant's turn begins. For ChatML the text
// holds special tokens: encode it with parse_special = true. `user_message` is used as it is.
// Errors: InvalidArgument if a ChatML message itself contains <|im_start|> or <|im_end|>, which
// would forge a turn.
absl::StatusOr<std::string> RenderPrompt(const ChatTemplate& chat_template,
                                         std::string_view user_message);

}  // namespace temper::model
