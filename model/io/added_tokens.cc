#include "model/io/added_tokens.h"

#include <algorithm>
#include <utility>

namespace temper::model {

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) {
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const uint8_t first = static_cast<uint8_t>(token.content[0]);
    by_first_byte_[first].push_back(std::move(token));
  }
  for (std::vector<AddedToken>& candidates : by_first_byte_) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const AddedToken& a, const AddedToken& b) {
                       return a.content.size() > b.content.size();
                     });
  }
}

const AddedToken* AddedTokenMatcher::MatchAt(std::string_view text) const {
  for (const AddedToken& token : by_first_byte_[static_cast<uint8_t>(text[0])]) {
    if (text.starts_with(token.content)) return &token;
  }
  return nullptr;
}

std::vector<AddedTokenMatcher::Piece> AddedTokenMatcher::Split(std::string_view text,
                                                               bool parse_special) const {
  std::vector<Piece> pieces;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = MatchAt(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    const size_t end = i + token->content.size();
    if (parse_special || !token->special) {
      if (i > begin) pieces.push_back({.text = text.substr(begin, i - begin)});
      pieces.push_back({.text = text.substr(i, end - i), .id = token->id});
      begin = end;
    }
    i = end;
  }
  if (begin < text.size()) pieces.push_back({.text = text.substr(begin)});
  return pieces;
}

}  // namespace temper::model
