#include <utility>

#include "model/io/tokenizer_parts.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

// Token types of GGUF that matter here.
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;

constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The pre-tokenizers that GGUF names stand for.
absl::Status SetPreTokenizer(std::string_view pre, TokenizerParts& parts) {
  if (pre == "gpt-2") {
    parts.pre_tokenizer = {{.pattern = kGpt2Pattern}};
  } else if (pre == "smollm") {
    parts.pre_tokenizer = {{.kind = PreTokenizerRule::Kind::kDigits}, {.pattern = kGpt2Pattern}};
  } else if (pre == "qwen2") {
    parts.nfc = true;
    parts.pre_tokenizer = {{.pattern = kQwen2Pattern}};
  } else if (pre == "llama-bpe") {
    parts.bpe.ignore_merges = true;
    parts.pre_tokenizer = {{.pattern = kLlama3Pattern}};
  } else {
    return absl::InvalidArgumentError(
        base::Cat("the GGUF pre-tokenizer \"", pre,
                  "\" is not supported (gpt-2, smollm, qwen2, llama-bpe are)"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> PartsFromGguf(const GgufTokenizer& gguf) {
  if (gguf.model != "gpt2") {
    return absl::InvalidArgumentError(base::Cat("the GGUF tokenizer model \"", gguf.model,
                                                "\" is not supported (gpt2, byte-level BPE, is)"));
  }
  if (!gguf.token_types.empty() && gguf.token_types.size() != gguf.tokens.size()) {
    return absl::DataLossError(base::Cat("the tokenizer has ", gguf.tokens.size(), " tokens and ",
                                         gguf.token_types.size(), " token types"));
  }
  TokenizerParts parts;
  TEMPER_RETURN_IF_ERROR(SetPreTokenizer(gguf.pre, parts));
  for (size_t i = 0; i < gguf.tokens.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    parts.bpe.vocabulary.emplace_back(gguf.tokens[i], id);
    const int32_t type = gguf.token_types.empty() ? 1 : gguf.token_types[i];
    if (type == kControl || type == kUserDefined) {
      parts.added_tokens.push_back(
          {.id = id, .content = gguf.tokens[i], .special = type == kControl});
    }
  }
  for (const std::string& merge : gguf.merges) {
    const size_t space = merge.find(' ');
    if (space == std::string::npos) {
      return absl::DataLossError(base::Cat("a merge of the tokenizer reads \"", merge, "\""));
    }
    parts.bpe.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return parts;
}

}  // namespace temper::model
