#include "model/io/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <utility>

#include "model/io/utf8.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Steps PCRE2 may take for one match. The models' patterns need a few per character of the match.
constexpr uint32_t kMatchLimit = 20'000'000;

// Unicode's White_Space, which \s means to tokenizers; PCRE2's \s has U+180E besides.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Spells out \s and \S. Refuses \S inside a class, where it has no such spelling.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += in_class ? std::string(kWhiteSpace) : base::Cat("[", kWhiteSpace, "]");
      } else if (escaped == 'S') {
        if (in_class) {
          return absl::InvalidArgumentError(
              base::Cat("pattern ", pattern, " has \\S inside a class, which is not supported"));
        }
        out += base::Cat("[^", kWhiteSpace, "]");
      } else {
        out += {c, escaped};
      }
      continue;
    }
    if (c == '[') {
      if (in_class) {
        return absl::InvalidArgumentError(
            base::Cat("pattern ", pattern, " has nested classes, which are not supported"));
      }
      in_class = true;
    }
    if (c == ']') in_class = false;
    out.push_back(c);
  }
  return out;
}

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct ContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using Code = std::unique_ptr<pcre2_code, CodeDeleter>;

std::string Pcre2Message(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

absl::StatusOr<Code> Compile(const std::string& pattern) {
  TEMPER_ASSIGN_OR_RETURN(const std::string translated, TranslatePattern(pattern));
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        base::Cat("pattern ", pattern, " does not compile: ", Pcre2Message(error)));
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, matching interprets
  return code;
}

bool IsNumeric(uint32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

void SplitDigits(std::string_view text, bool individual, std::vector<std::string_view>& pieces) {
  size_t begin = 0;
  bool in_digits = false;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = DecodeUtf8(text.substr(i));
    const bool digit = IsNumeric(step.code_point);
    if (i > begin && (digit != in_digits || (digit && individual))) {
      pieces.push_back(text.substr(begin, i - begin));
      begin = i;
    }
    in_digits = digit;
    i += step.bytes;
  }
  if (begin < text.size()) pieces.push_back(text.substr(begin));
}

absl::Status SplitByPattern(std::string_view text, const pcre2_code* code,
                            PreTokenizerRule::Gaps gaps, std::vector<std::string_view>& pieces) {
  const std::unique_ptr<pcre2_match_data, MatchDataDeleter> match(
      pcre2_match_data_create_from_pattern(code, nullptr));
  const std::unique_ptr<pcre2_match_context, ContextDeleter> context(
      pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t done = 0;
  for (size_t start = 0; start < text.size();) {
    const int result = pcre2_match(code, subject, text.size(), start, PCRE2_NO_UTF_CHECK,
                                   match.get(), context.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(base::Cat(
          "pre-tokenizing ", text.size(), " bytes of text failed: ", Pcre2Message(result)));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    const size_t begin = range[0];
    const size_t end = range[1];
    if (end == begin) {  // an empty match cuts nothing; go on behind the next character
      start = end + DecodeUtf8(text.substr(end)).bytes;
      continue;
    }
    if (begin > done && gaps == PreTokenizerRule::Gaps::kKept) {
      pieces.push_back(text.substr(done, begin - done));
    }
    pieces.push_back(text.substr(begin, end - begin));
    done = start = end;
  }
  if (done < text.size() && gaps == PreTokenizerRule::Gaps::kKept) {
    pieces.push_back(text.substr(done));
  }
  return absl::OkStatus();
}

}  // namespace

struct PreTokenizer::CompiledRule {
  PreTokenizerRule rule;
  Code code;  // null for kDigits
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::~PreTokenizer() = default;

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    const std::vector<PreTokenizerRule>& rules) {
  std::unique_ptr<PreTokenizer> pre_tokenizer(new PreTokenizer());
  for (const PreTokenizerRule& rule : rules) {
    Code code;
    if (rule.kind == PreTokenizerRule::Kind::kRegex) {
      TEMPER_ASSIGN_OR_RETURN(code, Compile(rule.pattern));
    }
    pre_tokenizer->rules_.push_back({rule, std::move(code)});
  }
  return pre_tokenizer;
}

absl::StatusOr<std::vector<std::string_view>> PreTokenizer::Split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const CompiledRule& compiled : rules_) {
    std::vector<std::string_view> cut;
    for (const std::string_view piece : pieces) {
      if (compiled.rule.kind == PreTokenizerRule::Kind::kDigits) {
        SplitDigits(piece, compiled.rule.individual_digits, cut);
      } else {
        TEMPER_RETURN_IF_ERROR(SplitByPattern(piece, compiled.code.get(), compiled.rule.gaps, cut));
      }
    }
    pieces = std::move(cut);
  }
  return pieces;
}

}  // namespace temper::model
