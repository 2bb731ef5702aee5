#include "model/io/utf8.h"

namespace temper::model {
namespace {

// Length of the character a first byte announces and the range its second byte may have: the
// ranges shut out overlong forms, surrogates and code points above 10FFFF.
struct Lead {
  size_t bytes = 0;  // 0: no first byte
  uint8_t second_low = 0x80;
  uint8_t second_high = 0xbf;
};

Lead LeadOf(uint8_t first) {
  if (first < 0x80) return {.bytes = 1};
  if (first < 0xc2) return {};
  if (first < 0xe0) return {.bytes = 2};
  if (first == 0xe0) return {.bytes = 3, .second_low = 0xa0};
  if (first == 0xed) return {.bytes = 3, .second_high = 0x9f};
  if (first < 0xf0) return {.bytes = 3};
  if (first == 0xf0) return {.bytes = 4, .second_low = 0x90};
  if (first < 0xf4) return {.bytes = 4};
  if (first == 0xf4) return {.bytes = 4, .second_high = 0x8f};
  return {};
}

}  // namespace

Utf8Step DecodeUtf8(std::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const Lead lead = LeadOf(first);
  if (lead.bytes == 0) return {.bytes = 1};
  if (lead.bytes == 1) return {.valid = true, .code_point = first, .bytes = 1};
  uint32_t code_point = first & (0x7fu >> lead.bytes);
  for (size_t i = 1; i < lead.bytes; ++i) {
    if (i >= text.size()) return {.bytes = i};
    const uint8_t next = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_low : 0x80;
    const uint8_t high = i == 1 ? lead.second_high : 0xbf;
    if (next < low || next > high) return {.bytes = i};
    code_point = (code_point << 6) | (next & 0x3fu);
  }
  return {.valid = true, .code_point = code_point, .bytes = lead.bytes};
}

size_t FindInvalidUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Step step = DecodeUtf8(text.substr(i));
    if (!step.valid) return i;
    i += step.bytes;
  }
  return std::string_view::npos;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = DecodeUtf8(bytes);
    out.append(step.valid ? bytes.substr(0, step.bytes) : std::string_view("\xef\xbf\xbd"));
    bytes.remove_prefix(step.bytes);
  }
  return out;
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xc0 | (code_point >> 6)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3f)));
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xe0 | (code_point >> 12)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3f)));
  } else {
    out.push_back(static_cast<char>(0xf0 | (code_point >> 18)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 12) & 0x3f)));
    out.push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code_point & 0x3f)));
  }
}

}  // namespace temper::model
