#include "reward_server/answer_extraction.h"

#include <array>

namespace temper::reward_server {
namespace {

constexpr std::string_view kHashes = "####";
// Dollar, euro, pound, yen, rupee, won.
constexpr std::array<std::string_view, 6> kCurrencySigns = {
    "$", "\xE2\x82\xAC", "\xC2\xA3", "\xC2\xA5", "\xE2\x82\xB9", "\xE2\x82\xA9"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsRunByte(char c) { return IsDigit(c) || c == '.' || c == ','; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Bytes of the sequence that `lead` announces; 1 for ASCII and for bytes that lead nothing.
size_t SequenceLength(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte >= 0xC2 && byte <= 0xDF) return 2;
  if (byte >= 0xE0 && byte <= 0xEF) return 3;
  if (byte >= 0xF0 && byte <= 0xF4) return 4;
  return 1;
}

// Where the code point that ends before `end` begins. end > 0.
size_t CodePointStart(std::string_view text, size_t end) {
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    const char c = text[end - length];
    if (IsContinuation(c)) continue;
    return SequenceLength(c) == length ? end - length : end - 1;
  }
  return end - 1;
}

// Where the first byte after `at` lies that no ornament (currency sign, space, asterisk) covers.
size_t SkipOrnaments(std::string_view text, size_t at) {
  while (at < text.size()) {
    if (text[at] == ' ' || text[at] == '\t' || text[at] == '*') {
      ++at;
      continue;
    }
    size_t sign_bytes = 0;
    for (std::string_view sign : kCurrencySigns) {
      if (text.substr(at, sign.size()) == sign) sign_bytes = sign.size();
    }
    if (sign_bytes == 0) break;
    at += sign_bytes;
  }
  return at;
}

size_t SkipDigits(std::string_view text, size_t at) {
  while (at < text.size() && IsDigit(text[at])) ++at;
  return at;
}

struct UnsignedNumber {
  std::string digits;  // without separators and trailing dot
  size_t end;          // where the scan goes on
};

// Reads the unsigned number that begins exactly at `at`, if one does.
std::optional<UnsignedNumber> ReadUnsigned(std::string_view text, size_t at) {
  const bool bare_fraction = at + 1 < text.size() && text[at] == '.' && IsDigit(text[at + 1]);
  if (at >= text.size() || (!IsDigit(text[at]) && !bare_fraction)) return std::nullopt;
  size_t end = SkipDigits(text, at);
  std::string digits(text.substr(at, end - at));
  if (end - at >= 1 && end - at <= 3) {
    while (end < text.size() && text[end] == ',' && SkipDigits(text, end + 1) == end + 4) {
      digits.append(text.substr(end + 1, 3));
      end += 4;
    }
  }
  if (end + 1 < text.size() && text[end] == '.' && IsDigit(text[end + 1])) {
    const size_t fraction_end = SkipDigits(text, end + 1);
    digits.append(text.substr(end, fraction_end - end));
    end = fraction_end;
  }
  return UnsignedNumber{.digits = std::move(digits), .end = end};
}

// Whether a minus at `at` can be a sign: not after a digit, a letter or a closing bracket.
bool MinusIsSign(std::string_view text, size_t at) {
  if (at == 0) return true;
  const char before = text[at - 1];
  return !IsDigit(before) && !IsLetter(before) && before != ')' && before != ']' && before != '-';
}

struct SignedNumber {
  std::string number;
  size_t end;
};

// Reads the number that begins exactly at `at`, its sign included. A sign may stand before currency
// signs and asterisks; before spaces only where `spaced_sign` says so.
std::optional<SignedNumber> ReadSigned(std::string_view text, size_t at, bool spaced_sign) {
  if (text[at] != '-') {
    auto number = ReadUnsigned(text, at);
    if (!number) return std::nullopt;
    return SignedNumber{.number = std::move(number->digits), .end = number->end};
  }
  if (!MinusIsSign(text, at)) return std::nullopt;
  const bool space_follows = at + 1 < text.size() && text[at + 1] == ' ';
  if (space_follows && !spaced_sign) return std::nullopt;
  auto number = ReadUnsigned(text, SkipOrnaments(text, at + 1));
  if (!number) return std::nullopt;
  return SignedNumber{.number = "-" + number->digits, .end = number->end};
}

// The first (or last) number of `text`.
std::optional<std::string> ScanNumbers(std::string_view text, bool first, bool spaced_sign) {
  std::optional<std::string> found;
  for (size_t at = 0; at < text.size();) {
    auto number = ReadSigned(text, at, spaced_sign);
    if (!number) {
      ++at;
      continue;
    }
    found = std::move(number->number);
    at = number->end;
    if (first) break;
  }
  return found;
}

struct Decimal {
  bool negative;
  std::string_view whole;     // without leading zeros
  std::string_view fraction;  // without trailing zeros
};

Decimal Normalize(std::string_view number) {
  Decimal result{.negative = !number.empty() && number.front() == '-'};
  if (result.negative) number.remove_prefix(1);
  const size_t dot = number.find('.');
  result.whole = number.substr(0, dot);
  if (dot != std::string_view::npos) result.fraction = number.substr(dot + 1);
  while (!result.whole.empty() && result.whole.front() == '0') result.whole.remove_prefix(1);
  while (!result.fraction.empty() && result.fraction.back() == '0') {
    result.fraction.remove_suffix(1);
  }
  if (result.whole.empty() && result.fraction.empty()) result.negative = false;
  return result;
}

}  // namespace

std::string_view Tail(std::string_view completion) {
  size_t start = completion.size();
  for (size_t count = 0; count < kTailCodePoints && start > 0; ++count) {
    start = CodePointStart(completion, start);
  }
  return completion.substr(start);
}

std::optional<std::string_view> ExtractStrict(std::string_view tail) {
  size_t hashes = tail.rfind(kHashes);
  while (hashes != std::string_view::npos) {
    size_t at = hashes + kHashes.size();
    if (at < tail.size() && tail[at] == ' ') {
      const size_t begin = ++at;
      if (at < tail.size() && tail[at] == '-') ++at;
      const size_t run = at;
      while (at < tail.size() && IsRunByte(tail[at])) ++at;
      if (at > run) return tail.substr(begin, at - begin);
    }
    if (hashes == 0) break;
    hashes = tail.rfind(kHashes, hashes - 1);
  }
  return std::nullopt;
}

std::optional<std::string_view> ExtractFlexible(std::string_view tail) {
  size_t end = tail.size();
  while (end > 0) {
    if (!IsRunByte(tail[end - 1])) {
      --end;
      continue;
    }
    size_t begin = end;
    while (begin > 0 && IsRunByte(tail[begin - 1])) --begin;
    if (begin > 0 && tail[begin - 1] == '-') --begin;
    const std::string_view run = tail.substr(begin, end - begin);
    if (run != ".") return run;
    end = begin;
  }
  return std::nullopt;
}

std::optional<std::string> ExtractNumber(std::string_view tail) {
  const size_t hashes = tail.rfind(kHashes);
  if (hashes != std::string_view::npos) {
    auto number = ScanNumbers(tail.substr(hashes + kHashes.size()), /*first=*/true,
                              /*spaced_sign=*/true);
    if (number) return number;
  }
  return ScanNumbers(tail, /*first=*/false, /*spaced_sign=*/false);
}

std::optional<std::string> ParseNumber(std::string_view text) {
  const size_t begin = SkipOrnaments(text, 0);
  if (begin >= text.size()) return std::nullopt;
  auto number = ReadSigned(text, begin, /*spaced_sign=*/true);
  if (!number) return std::nullopt;
  size_t end = number->end;
  if (end < text.size() && text[end] == '.') ++end;
  if (SkipOrnaments(text, end) != text.size()) return std::nullopt;
  return std::move(number->number);
}

bool EqualDecimals(std::string_view a, std::string_view b) {
  const Decimal left = Normalize(a);
  const Decimal right = Normalize(b);
  return left.negative == right.negative && left.whole == right.whole &&
         left.fraction == right.fraction;
}

}  // namespace temper::reward_server
