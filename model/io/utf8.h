#pragma once

// UTF-8, byte by byte, as Unicode chapter 3 defines it. Private to model/io.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace temper::model {

// One step of decoding.
struct Utf8Step {
  bool valid = false;
  uint32_t code_point = 0;  // where valid
  // Bytes taken: of the character, or of the longest beginning of one that is not completed (at
  // least 1), which is what one U+FFFD stands for.
  size_t bytes = 0;
};

// Decodes the character at the beginning of `text`, which must not be empty.
Utf8Step DecodeUtf8(std::string_view text);

// Offset of the first byte that is not part of a valid character, or npos.
size_t FindInvalidUtf8(std::string_view text);

// `bytes` with what is not UTF-8 replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view bytes);

// Appends the UTF-8 form of `code_point`.
void AppendUtf8(uint32_t code_point, std::string& out);

}  // namespace temper::model
