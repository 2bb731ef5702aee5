#pragma once

// GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written:
// printable Latin-1 bytes stand for themselves, the other 68 are U+0100, U+0101, ... in order.
// Private to model/io.

#include <cstdint>
#include <string>
#include <string_view>

namespace temper::model {

// The printable character of `byte`, as UTF-8.
const std::string& SpellByte(uint8_t byte);

// The bytes a vocabulary entry stands for. An entry with a character that spells no byte (an added
// token such as "<a b>") stands for its own text.
std::string UnspellBytes(std::string_view token);

}  // namespace temper::model
