#pragma once

// Tokens that are cut out of the text before anything else. Private to model/io.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace temper::model {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;  // matched after normalization instead of before
};

// Finds a set of tokens in text; of several that begin at one place the longest counts.
// Thread-safe once made.
class AddedTokenMatcher final {
 public:
  struct Piece {
    std::string_view text;
    int32_t id = -1;  // -1: ordinary text
  };

  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Cuts `text`. Without parse_special a special token that is found stays ordinary text (and
  // nothing is looked for inside it). No piece is empty.
  std::vector<Piece> Split(std::string_view text, bool parse_special) const;

 private:
  const AddedToken* MatchAt(std::string_view text) const;

  // By first byte, the longest first.
  std::array<std::vector<AddedToken>, 256> by_first_byte_;
};

}  // namespace temper::model
