#pragma once

// A tokenizer taken apart, between the files that describe one and the class that runs it. Private
// to model/io.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/io/added_tokens.h"
#include "model/io/bpe.h"
#include "model/io/pre_tokenizer.h"
#include "model/io/tokenizer.h"

namespace temper::model {

struct TokenizerParts {
  BpeParts bpe;
  std::vector<AddedToken> added_tokens;  // ids may repeat vocabulary entries of the same spelling
  bool nfc = false;
  std::vector<PreTokenizerRule> pre_tokenizer;
};

// Reads a tokenizer.json. Errors: see Tokenizer::FromJson.
absl::StatusOr<TokenizerParts> PartsFromJson(std::string_view tokenizer_json);

// Reads GGUF metadata. Errors: see Tokenizer::FromGguf.
absl::StatusOr<TokenizerParts> PartsFromGguf(const GgufTokenizer& gguf);

// Writes a tokenizer.json of these parts.
std::string PartsToJson(const TokenizerParts& parts);

}  // namespace temper::model
