#include "model/io/tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "model/io/byte_level.h"
#include "model/io/tokenizer_parts.h"
#include "model/io/utf8.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {

struct Tokenizer::Impl {
  std::unique_ptr<Bpe> bpe;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  AddedTokenMatcher before_normalization;
  AddedTokenMatcher after_normalization;
  bool nfc = false;
  std::vector<std::string> texts;  // by id: the bytes the token stands for
  std::vector<bool> special;       // by id
  absl::flat_hash_map<std::string, int32_t> added_ids;
  int32_t bos_token_id = -1;
  int32_t eos_token_id = -1;
  int32_t pad_token_id = -1;
  std::string json;

  static absl::StatusOr<std::unique_ptr<Impl>> Create(TokenizerParts parts);
  absl::Status FillTexts(const TokenizerParts& parts);
  absl::Status EncodeWords(std::string_view text, std::vector<int32_t>& ids) const;
};

namespace {

// Normalization form C. Errors: ResourceExhausted if utf8proc cannot.
absl::StatusOr<std::string> NormalizeNfc(std::string_view text) {
  utf8proc_uint8_t* normalized = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &normalized,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) {
    return absl::ResourceExhaustedError(
        base::Cat("cannot normalize text: ", std::string(utf8proc_errmsg(size))));
  }
  std::string result(reinterpret_cast<const char*>(normalized), static_cast<size_t>(size));
  std::free(normalized);
  return result;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

// Every id from 0 to the largest must be some token, and only one.
absl::Status Tokenizer::Impl::FillTexts(const TokenizerParts& parts) {
  const size_t count = parts.bpe.vocabulary.size() + parts.added_tokens.size();
  std::vector<const std::string*> spelling(count, nullptr);
  const auto place = [&](const std::string& token, int32_t id) -> absl::Status {
    if (static_cast<size_t>(id) >= count) {
      return absl::DataLossError(base::Cat("token \"", token, "\" has the id ", id,
                                           ", but there are at most ", count, " tokens"));
    }
    if (spelling[id] != nullptr && *spelling[id] != token) {
      return absl::DataLossError(
          base::Cat("tokens \"", *spelling[id], "\" and \"", token, "\" both have the id ", id));
    }
    spelling[id] = &token;
    return absl::OkStatus();
  };
  for (const auto& [token, id] : parts.bpe.vocabulary) TEMPER_RETURN_IF_ERROR(place(token, id));
  for (const AddedToken& token : parts.added_tokens) {
    const int32_t known = bpe->Find(token.content);
    if (known >= 0 && known != token.id) {
      return absl::DataLossError(base::Cat("added token \"", token.content, "\" has the id ",
                                           token.id, ", the vocabulary says ", known));
    }
    TEMPER_RETURN_IF_ERROR(place(token.content, token.id));
  }
  while (!spelling.empty() && spelling.back() == nullptr) spelling.pop_back();
  if (spelling.empty()) return absl::DataLossError("the tokenizer has no tokens");
  for (size_t id = 0; id < spelling.size(); ++id) {
    if (spelling[id] == nullptr) {
      return absl::DataLossError(base::Cat("the tokenizer lacks the token of id ", id));
    }
    texts.push_back(UnspellBytes(*spelling[id]));
  }
  special.assign(texts.size(), false);
  for (const AddedToken& token : parts.added_tokens) {
    special[token.id] = token.special;
    added_ids.insert_or_assign(token.content, token.id);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer::Impl>> Tokenizer::Impl::Create(TokenizerParts parts) {
  auto impl = std::make_unique<Impl>();
  impl->nfc = parts.nfc;
  TEMPER_ASSIGN_OR_RETURN(impl->bpe, Bpe::Create(parts.bpe));
  TEMPER_ASSIGN_OR_RETURN(impl->pre_tokenizer, PreTokenizer::Create(parts.pre_tokenizer));
  TEMPER_RETURN_IF_ERROR(impl->FillTexts(parts));
  std::vector<AddedToken> before, after;
  for (AddedToken& token : parts.added_tokens) {
    (token.normalized ? after : before).push_back(std::move(token));
  }
  impl->before_normalization = AddedTokenMatcher(std::move(before));
  impl->after_normalization = AddedTokenMatcher(std::move(after));
  return impl;
}

absl::Status Tokenizer::Impl::EncodeWords(std::string_view text, std::vector<int32_t>& ids) const {
  TEMPER_ASSIGN_OR_RETURN(const std::vector<std::string_view> words, pre_tokenizer->Split(text));
  for (const std::string_view word : words) {
    TEMPER_RETURN_IF_ERROR(bpe->EncodeWord(word, ids));
  }
  return absl::OkStatus();
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json) {
  TEMPER_ASSIGN_OR_RETURN(TokenizerParts parts, PartsFromJson(tokenizer_json));
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::Create(std::move(parts)));
  impl->json = std::string(tokenizer_json);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufTokenizer& gguf) {
  TEMPER_ASSIGN_OR_RETURN(TokenizerParts parts, PartsFromGguf(gguf));
  std::string json = PartsToJson(parts);
  TEMPER_ASSIGN_OR_RETURN(std::unique_ptr<Impl> impl, Impl::Create(std::move(parts)));
  impl->json = std::move(json);
  impl->bos_token_id = gguf.bos_token_id;
  impl->eos_token_id = gguf.eos_token_id;
  impl->pad_token_id = gguf.pad_token_id;
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       bool parse_special) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        base::Cat("text of ", text.size(), " bytes is longer than ", kMaxTextBytes));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != std::string_view::npos) {
    return absl::InvalidArgumentError(base::Cat("text is not UTF-8 at byte ", invalid));
  }
  std::vector<int32_t> ids;
  for (const auto& outer : impl_->before_normalization.Split(text, parse_special)) {
    if (outer.id >= 0) {
      ids.push_back(outer.id);
      continue;
    }
    std::string normalized;
    std::string_view ordinary = outer.text;
    if (impl_->nfc && !IsAscii(ordinary)) {
      TEMPER_ASSIGN_OR_RETURN(normalized, NormalizeNfc(ordinary));
      ordinary = normalized;
    }
    for (const auto& inner : impl_->after_normalization.Split(ordinary, parse_special)) {
      if (inner.id >= 0) {
        ids.push_back(inner.id);
      } else {
        TEMPER_RETURN_IF_ERROR(impl_->EncodeWords(inner.text, ids));
      }
    }
  }
  return ids;
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return absl::InvalidArgumentError(
          base::Cat("token id ", id, " is outside the vocabulary of ", vocab_size()));
    }
    if (skip_special && impl_->special[id]) continue;
    bytes += impl_->texts[id];
  }
  return ReplaceInvalidUtf8(bytes);
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->texts.size()); }

int32_t Tokenizer::TokenId(std::string_view token) const {
  const auto found = impl_->added_ids.find(base::ToAbsl(token));
  return found == impl_->added_ids.end() ? impl_->bpe->Find(token) : found->second;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[id];
}

int32_t Tokenizer::bos_token_id() const { return impl_->bos_token_id; }
int32_t Tokenizer::eos_token_id() const { return impl_->eos_token_id; }
int32_t Tokenizer::pad_token_id() const { return impl_->pad_token_id; }
std::string Tokenizer::ToTokenizerJson() const { return impl_->json; }

}  // namespace temper::model
