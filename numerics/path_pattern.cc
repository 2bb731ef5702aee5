// Globs over the components of module paths.

#include <string>
#include <string_view>
#include <vector>

#include "numerics/row_selection.h"

namespace temper::numerics {
namespace {

using Components = std::vector<std::string_view>;

Components Split(std::string_view text) {
  Components parts;
  for (size_t dot = text.find('.'); dot != std::string_view::npos; dot = text.find('.')) {
    parts.push_back(text.substr(0, dot));
    text.remove_prefix(dot + 1);
  }
  parts.push_back(text);
  return parts;
}

// `*` stands for any characters; everything else for itself. Linear but for one retry per star.
bool ComponentMatches(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, retry = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool MatchesFrom(const Components& pattern, size_t p, const Components& path, size_t t) {
  if (p == pattern.size()) return true;
  if (pattern[p] == "**") {
    for (size_t skip = t; skip <= path.size(); ++skip) {
      if (MatchesFrom(pattern, p + 1, path, skip)) return true;
    }
    return false;
  }
  return t < path.size() && ComponentMatches(pattern[p], path[t]) &&
         MatchesFrom(pattern, p + 1, path, t + 1);
}

std::string_view LastComponent(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

}  // namespace

bool PathMatches(std::string_view pattern, std::string_view path) {
  // Neighbouring `**` say no more than one, and would make the search exponential.
  Components parts;
  for (const std::string_view part : Split(pattern)) {
    if (part != "**" || parts.empty() || parts.back() != "**") parts.push_back(part);
  }
  constexpr size_t kMaxComponents = 16;
  if (parts.size() > kMaxComponents) return false;
  const Components components = Split(path);
  for (size_t start = 0; start < components.size(); ++start) {
    if (MatchesFrom(parts, 0, components, start)) return true;
  }
  return false;
}

bool PatternSelects(std::string_view pattern, Operator op, int layer) {
  const std::string path = OperatorPath(op, layer);
  if (PathMatches(pattern, path)) return true;
  const std::string_view last = LastComponent(path);
  const std::string alias =
      path.substr(0, path.size() - last.size()) + std::string(OperatorName(op));
  return PathMatches(pattern, alias);
}

bool PatternNames(std::string_view pattern, Operator op, int layer) {
  const std::string_view last = LastComponent(pattern);
  return (last == OperatorName(op) || last == LastComponent(OperatorPath(op, layer))) &&
         PatternSelects(pattern, op, layer);
}

}  // namespace temper::numerics
