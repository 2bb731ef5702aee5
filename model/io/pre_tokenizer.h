#pragma once

// Cuts text into the words that merges never cross. Private to model/io.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper::model {

// One rule; a pre-tokenizer applies its rules in order, each to every piece of the one before.
struct PreTokenizerRule {
  enum class Kind {
    kDigits,  // characters of Unicode category N stand alone (or, not individual, in runs)
    kRegex,   // matches of a pattern become pieces
  };
  // What happens to text between matches.
  enum class Gaps { kKept, kRemoved };

  Kind kind = Kind::kRegex;
  bool individual_digits = true;
  std::string pattern;  // Oniguruma syntax, as tokenizer.json holds it
  Gaps gaps = Gaps::kKept;
};

// GPT-2's pattern, which ByteLevel with use_regex applies.
extern const char kGpt2Pattern[];

// Thread-safe: patterns are compiled once and never changed.
class PreTokenizer final {
 public:
  // Errors: InvalidArgument, with the pattern and the place, for a pattern that does not compile.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(
      const std::vector<PreTokenizerRule>& rules);
  ~PreTokenizer();

  // The pieces of `text` (valid UTF-8), in order; views into it, none empty.
  // Errors: ResourceExhausted if a pattern needs more than its match limit.
  absl::StatusOr<std::vector<std::string_view>> Split(std::string_view text) const;

 private:
  struct CompiledRule;
  PreTokenizer();
  std::vector<CompiledRule> rules_;
};

}  // namespace temper::model
