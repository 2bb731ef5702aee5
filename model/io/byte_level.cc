#include "model/io/byte_level.h"

#include <array>

#include "model/io/utf8.h"

namespace temper::model {
namespace {

constexpr bool SpellsItself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// Both directions. Code points reach 0x100 + 67.
struct Tables {
  std::array<std::string, 256> spelling;
  std::array<int, 0x144> byte_of;  // -1: spells no byte
};

Tables MakeTables() {
  Tables tables;
  tables.byte_of.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t code_point = SpellsItself(byte) ? byte : next++;
    AppendUtf8(code_point, tables.spelling[byte]);
    tables.byte_of[code_point] = static_cast<int>(byte);
  }
  return tables;
}

const Tables& GetTables() {
  static const Tables* const kTables = new Tables(MakeTables());
  return *kTables;
}

}  // namespace

const std::string& SpellByte(uint8_t byte) { return GetTables().spelling[byte]; }

std::string UnspellBytes(std::string_view token) {
  const Tables& tables = GetTables();
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    const Utf8Step step = DecodeUtf8(rest);
    if (!step.valid || step.code_point >= tables.byte_of.size() ||
        tables.byte_of[step.code_point] < 0) {
      return std::string(token);
    }
    bytes.push_back(static_cast<char>(tables.byte_of[step.code_point]));
    rest.remove_prefix(step.bytes);
  }
  return bytes;
}

}  // namespace temper::model
