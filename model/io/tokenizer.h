#pragma once

// Byte-level BPE, as Hugging Face `tokenizers` and llama.cpp run it, bit for bit.
//
//   text -> added tokens cut out -> NFC (if the model says so) -> pre-tokenizer (words)
//        -> bytes as printable characters -> merges by rank -> ids

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model {

// The tokenizer a GGUF file carries (tokenizer.ggml.*).
struct GgufTokenizer {
  std::string model;                 // only "gpt2" (byte-level BPE) is supported
  std::string pre;                   // name of the pre-tokenizer: "smollm", "qwen2", "gpt-2", ...
  std::vector<std::string> tokens;   // by id, in printable byte-level characters
  std::vector<std::string> merges;   // "left right", by rank
  std::vector<int32_t> token_types;  // 1 normal, 3 control, 4 user-defined, ...; empty: all normal
  int32_t bos_token_id = -1;
  int32_t eos_token_id = -1;
  int32_t pad_token_id = -1;
  int32_t unknown_token_id = -1;
  std::string chat_template;  // empty: none
};

// Owns its vocabulary and compiled patterns. Thread-safe: encoding and decoding are const; a small
// cache of words is guarded inside.
class Tokenizer final {
 public:
  // Reads the text of a tokenizer.json. Supported: model BPE (no dropout, byte_fallback or
  // continuing prefixes); normalizer none or NFC; pre-tokenizer ByteLevel, Digits, Split (by Regex
  // or String; Isolated, or Removed and inverted), and sequences of them that end with ByteLevel;
  // decoder ByteLevel. Post-processors are not applied, since no special token is ever added.
  // Errors: InvalidArgument for an unsupported component, by its name; DataLoss for text that is
  // not JSON, and
  // for a vocabulary that lacks a piece: a merge whose parts or result are no tokens, ids
  // that are not 0 .. n-1 each once, an added token with a foreign id.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view tokenizer_json);

  // The same from GGUF metadata. Errors as above; InvalidArgument names an unknown `pre`.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufTokenizer& gguf);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Ids of `text` (UTF-8), with no special token added. parse_special: text that spells a special
  // token becomes that token; otherwise it is ordinary text (added tokens that are not special are
  // always recognised, as `tokenizers` does).
  // Errors: InvalidArgument if `text` is not UTF-8 (with the byte offset), is longer than
  // kMaxTextBytes, or holds a byte the vocabulary has no token for; ResourceExhausted if a pattern
  // exceeds its match limit.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool parse_special) const;

  // The text of `ids`. Bytes that do not form UTF-8 become U+FFFD, as in `tokenizers`.
  // skip_special leaves special tokens out.
  // Errors: InvalidArgument for an id outside 0 .. vocab_size()-1.
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip_special) const;

  // One more than the largest id, added tokens included.
  int32_t vocab_size() const;

  // Id of a token by its exact spelling (added tokens first), or -1.
  int32_t TokenId(std::string_view token) const;

  // Whether `id` is a special token. Any id may be asked.
  bool IsSpecial(int32_t id) const;

  // From GGUF metadata; -1 or empty where the source (tokenizer.json names none) does not say.
  int32_t bos_token_id() const;
  int32_t eos_token_id() const;
  int32_t pad_token_id() const;

  // A tokenizer.json that `tokenizers` opens and that encodes like this tokenizer. For one read by
  // FromJson this is the text it was read from.
  std::string ToTokenizerJson() const;

  // No text of a run comes near this; a longer one is refused before any work. 64 MiB.
  static constexpr size_t kMaxTextBytes = size_t{64} << 20;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::model
