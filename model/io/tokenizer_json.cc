#include <utility>

#include "model/io/json.h"
#include "model/io/tokenizer_parts.h"
#include "services/base/status_macros.h"
#include "services/base/text.h"

namespace temper::model {
namespace {

absl::Status Unsupported(std::string_view what) {
  return absl::InvalidArgumentError(
      base::Cat("the tokenizer uses ", what, ", which is not supported"));
}

// Refuses `key` unless it is missing or has the value under which it does nothing.
absl::Status RefuseUnless(const json::Value& object, std::string_view key,
                          const json::Value& harmless) {
  const json::Value& value = json::Member(object, key);
  if (value.is_null() || value == harmless) return absl::OkStatus();
  return Unsupported(base::Cat(key, " = ", json::Excerpt(value)));
}

absl::Status ReadNormalizer(const json::Value& normalizer, TokenizerParts& parts) {
  if (normalizer.is_null()) return absl::OkStatus();
  TEMPER_ASSIGN_OR_RETURN(const std::string type, json::String(normalizer, "type"));
  if (type == "NFC") {
    parts.nfc = true;
    return absl::OkStatus();
  }
  if (type != "Sequence") return Unsupported(base::Cat("the normalizer ", type));
  for (const json::Value& member : json::Member(normalizer, "normalizers")) {
    if (json::Member(member, "type") == "Sequence") return Unsupported("nested normalizers");
    TEMPER_RETURN_IF_ERROR(ReadNormalizer(member, parts));
  }
  return absl::OkStatus();
}

// Puts a backslash before what a pattern would not take literally.
std::string QuotePattern(std::string_view literal) {
  std::string quoted;
  for (const char c : literal) {
    if (std::string_view(R"(\^$.[]|()?*+{}#- )").find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return quoted;
}

absl::StatusOr<PreTokenizerRule> ReadSplit(const json::Value& split) {
  PreTokenizerRule rule{.kind = PreTokenizerRule::Kind::kRegex};
  const json::Value& pattern = json::Member(split, "pattern");
  if (json::Member(pattern, "String").is_string()) {
    rule.pattern = QuotePattern(json::Member(pattern, "String").get<std::string>());
  } else {
    TEMPER_ASSIGN_OR_RETURN(rule.pattern, json::String(pattern, "Regex"));
  }
  TEMPER_ASSIGN_OR_RETURN(const std::string behavior, json::String(split, "behavior"));
  TEMPER_ASSIGN_OR_RETURN(const bool invert, json::BoolOr(split, "invert", false));
  if (behavior == "Isolated" && !invert) {
    rule.gaps = PreTokenizerRule::Gaps::kKept;
  } else if (behavior == "Removed" && invert) {
    rule.gaps = PreTokenizerRule::Gaps::kRemoved;
  } else {
    return Unsupported(base::Cat("a Split with behavior ", behavior, invert ? ", inverted" : ""));
  }
  return rule;
}

absl::Status ReadPreTokenizer(const json::Value& pre, int depth, bool& byte_level,
                              TokenizerParts& parts) {
  TEMPER_ASSIGN_OR_RETURN(const std::string type, json::String(pre, "type"));
  // What follows ByteLevel would see bytes as characters, which no known model wants.
  if (byte_level) return Unsupported(base::Cat("the pre-tokenizer ", type, " after ByteLevel"));
  if (type == "Sequence") {
    if (depth > 0) return Unsupported("nested sequences of pre-tokenizers");
    for (const json::Value& member : json::Member(pre, "pretokenizers")) {
      TEMPER_RETURN_IF_ERROR(ReadPreTokenizer(member, depth + 1, byte_level, parts));
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") {
    byte_level = true;
    TEMPER_RETURN_IF_ERROR(RefuseUnless(pre, "add_prefix_space", false));
    TEMPER_ASSIGN_OR_RETURN(const bool use_regex, json::BoolOr(pre, "use_regex", true));
    if (use_regex) parts.pre_tokenizer.push_back({.pattern = kGpt2Pattern});
    return absl::OkStatus();
  }
  if (type == "Digits") {
    PreTokenizerRule rule{.kind = PreTokenizerRule::Kind::kDigits};
    TEMPER_ASSIGN_OR_RETURN(rule.individual_digits, json::BoolOr(pre, "individual_digits", false));
    parts.pre_tokenizer.push_back(std::move(rule));
    return absl::OkStatus();
  }
  if (type == "Split") {
    TEMPER_ASSIGN_OR_RETURN(PreTokenizerRule rule, ReadSplit(pre));
    parts.pre_tokenizer.push_back(std::move(rule));
    return absl::OkStatus();
  }
  return Unsupported(base::Cat("the pre-tokenizer ", type));
}

// A merge is "left right" (older files) or ["left", "right"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMerge(const json::Value& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  if (merge.is_string()) {
    const std::string text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return absl::DataLossError(base::Cat("a merge of the tokenizer reads ", json::Excerpt(merge)));
}

absl::StatusOr<int32_t> ReadId(const json::Value& value, std::string_view token) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{INT32_MAX}) {
    return absl::DataLossError(
        base::Cat("token \"", token, "\" has the id ", json::Excerpt(value)));
  }
  return value.get<int32_t>();
}

absl::Status ReadModel(const json::Value& model, BpeParts& bpe) {
  TEMPER_ASSIGN_OR_RETURN(const std::string type, json::StringOr(model, "type", "BPE"));
  if (type != "BPE") return Unsupported(base::Cat("the model ", type));
  TEMPER_RETURN_IF_ERROR(RefuseUnless(model, "dropout", 0.0));
  TEMPER_RETURN_IF_ERROR(RefuseUnless(model, "continuing_subword_prefix", ""));
  TEMPER_RETURN_IF_ERROR(RefuseUnless(model, "end_of_word_suffix", ""));
  TEMPER_RETURN_IF_ERROR(RefuseUnless(model, "byte_fallback", false));
  TEMPER_ASSIGN_OR_RETURN(bpe.unknown_token, json::StringOr(model, "unk_token", ""));
  TEMPER_ASSIGN_OR_RETURN(bpe.fuse_unknown, json::BoolOr(model, "fuse_unk", false));
  TEMPER_ASSIGN_OR_RETURN(bpe.ignore_merges, json::BoolOr(model, "ignore_merges", false));
  const json::Value& vocabulary = json::Member(model, "vocab");
  const json::Value& merges = json::Member(model, "merges");
  if (!vocabulary.is_object() || !merges.is_array()) {
    return absl::DataLossError("the tokenizer's model lacks its vocab or its merges");
  }
  for (const auto& [token, id] : vocabulary.items()) {
    TEMPER_ASSIGN_OR_RETURN(const int32_t value, ReadId(id, token));
    bpe.vocabulary.emplace_back(token, value);
  }
  for (const json::Value& merge : merges) {
    TEMPER_ASSIGN_OR_RETURN(auto pair, ReadMerge(merge));
    bpe.merges.push_back(std::move(pair));
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const json::Value& value) {
  AddedToken token;
  TEMPER_ASSIGN_OR_RETURN(token.content, json::String(value, "content"));
  TEMPER_ASSIGN_OR_RETURN(token.id, ReadId(json::Member(value, "id"), token.content));
  TEMPER_ASSIGN_OR_RETURN(token.special, json::BoolOr(value, "special", false));
  TEMPER_ASSIGN_OR_RETURN(token.normalized, json::BoolOr(value, "normalized", !token.special));
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
    TEMPER_ASSIGN_OR_RETURN(const bool set, json::BoolOr(value, flag, false));
    if (set) return Unsupported(base::Cat("the added token ", token.content, " with ", flag));
  }
  return token;
}

json::Value ByteLevelJson(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// The rules of `parts`; a last rule with GPT-2's pattern is ByteLevel's own.
json::Value PreTokenizerJson(const TokenizerParts& parts) {
  json::Value members = json::Value::array();
  const auto& rules = parts.pre_tokenizer;
  const bool use_regex = !rules.empty() && rules.back().pattern == kGpt2Pattern;
  for (size_t i = 0; i + (use_regex ? 1 : 0) < rules.size(); ++i) {
    const PreTokenizerRule& rule = rules[i];
    if (rule.kind == PreTokenizerRule::Kind::kDigits) {
      members.push_back({{"type", "Digits"}, {"individual_digits", rule.individual_digits}});
    } else {
      const bool removed = rule.gaps == PreTokenizerRule::Gaps::kRemoved;
      members.push_back({{"type", "Split"},
                         {"pattern", {{"Regex", rule.pattern}}},
                         {"behavior", removed ? "Removed" : "Isolated"},
                         {"invert", removed}});
    }
  }
  members.push_back(ByteLevelJson(use_regex));
  if (members.size() == 1) return members[0];
  return {{"type", "Sequence"}, {"pretokenizers", members}};
}

}  // namespace

absl::StatusOr<TokenizerParts> PartsFromJson(std::string_view tokenizer_json) {
  TEMPER_ASSIGN_OR_RETURN(const json::Value object,
                          json::ParseObject(tokenizer_json, "tokenizer.json"));
  TokenizerParts parts;
  TEMPER_RETURN_IF_ERROR(ReadNormalizer(json::Member(object, "normalizer"), parts));
  bool byte_level = false;
  TEMPER_RETURN_IF_ERROR(
      ReadPreTokenizer(json::Member(object, "pre_tokenizer"), 0, byte_level, parts));
  if (!byte_level) return Unsupported("a pre-tokenizer without ByteLevel");
  TEMPER_ASSIGN_OR_RETURN(const std::string decoder,
                          json::StringOr(json::Member(object, "decoder"), "type", "none"));
  if (decoder != "ByteLevel") return Unsupported(base::Cat("the decoder ", decoder));
  TEMPER_RETURN_IF_ERROR(ReadModel(json::Member(object, "model"), parts.bpe));
  for (const json::Value& value : json::Member(object, "added_tokens")) {
    TEMPER_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(value));
    parts.added_tokens.push_back(std::move(token));
  }
  return parts;
}

std::string PartsToJson(const TokenizerParts& parts) {
  json::Value added = json::Value::array();
  for (const AddedToken& token : parts.added_tokens) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  json::Value vocabulary = json::Value::object();
  for (const auto& [token, id] : parts.bpe.vocabulary) vocabulary[token] = id;
  json::Value merges = json::Value::array();
  for (const auto& [left, right] : parts.bpe.merges) {
    merges.push_back(json::Value::array({left, right}));
  }
  const std::string& unknown = parts.bpe.unknown_token;
  const json::Value object = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", parts.nfc ? json::Value{{"type", "NFC"}} : json::Value()},
      {"pre_tokenizer", PreTokenizerJson(parts)},
      {"post_processor", nullptr},
      {"decoder", ByteLevelJson(true)},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", unknown.empty() ? json::Value() : json::Value(unknown)},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", parts.bpe.fuse_unknown},
        {"byte_fallback", false},
        {"ignore_merges", parts.bpe.ignore_merges},
        {"vocab", vocabulary},
        {"merges", merges}}},
  };
  return base::Cat(object.dump(1, ' ', false, json::Value::error_handler_t::replace), "\n");
}

}  // namespace temper::model
