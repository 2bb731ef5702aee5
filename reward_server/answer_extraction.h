#pragma once

// Finds the answer a completion ends with. Linear scanners, no regular expressions: none of them
// looks at more than the tail, so their cost is bounded whatever the completion is.
//
// Digits are ASCII. Completions may hold any bytes, invalid UTF-8 and NUL included.
// Threading: pure functions.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace temper::reward_server {

// Code points the rules look at, counted from the end (as verl clips).
inline constexpr size_t kTailCodePoints = 300;
// A code point has at most four bytes, so no scanner reads more than this of a completion.
inline constexpr size_t kMaxTailBytes = 4 * kTailCodePoints;

// The last kTailCodePoints Unicode code points of `completion`, or all of it if it has fewer. A
// byte that is not part of a well-formed sequence counts as one code point. A view into
// `completion`.
std::string_view Tail(std::string_view completion);

// The last match of: four hashes, one space, optional minus, one or more of digits, dots, commas.
// Returned as written, without the hashes and the space; a view into `tail`. A fifth hash before
// the four does not matter ("##### 18" matches).
std::optional<std::string_view> ExtractStrict(std::string_view tail);

// The last run of optional minus and one or more of digits, dots, commas that is not exactly ".".
// Returned as written; a view into `tail`. Null where every run is "." or there is none.
std::optional<std::string_view> ExtractFlexible(std::string_view tail);

// A number in free text: the first one after the last "####", else the last one in the tail (also
// where no number follows the hashes). A number is
//   digits, with commas as thousands separators where they cut groups of exactly three;
//   optionally a dot and digits, or a dot and digits alone (".5");
//   a minus before it, also across currency signs, spaces and asterisks ("-$18", "- 18" after the
//   hashes only), where it is a sign and not a subtraction or a hyphen ("3-5" ends with 5).
// Returned without separators and without a trailing dot: "$1,000." -> "1000", "18.00" -> "18.00".
std::optional<std::string> ExtractNumber(std::string_view tail);

// Reads `text` as one number by the rules of ExtractNumber, allowing nothing but currency signs,
// spaces and asterisks around it and one trailing dot. Null if it is anything else.
std::optional<std::string> ParseNumber(std::string_view text);

// Whether two results of ExtractNumber or ParseNumber are the same decimal: "18" = "18.00" = "018",
// "-0" = "0". Exact, at any length.
bool EqualDecimals(std::string_view a, std::string_view b);

}  // namespace temper::reward_server
