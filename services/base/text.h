#pragma once

// Debian's Abseil is built with a string_view type of its own, which std::string_view does not
// convert to. Our interfaces use std::string_view; these bridge the two.

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace temper::base {

inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view FromAbsl(absl::string_view text) { return {text.data(), text.size()}; }

// absl::StrCat that also takes std::string_view: strings, numbers, absl::Hex and the like.
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  const auto bridged = [](const auto& part) -> decltype(auto) {
    using Part = std::remove_cvref_t<decltype(part)>;
    if constexpr (std::is_same_v<Part, std::string_view>) {
      return ToAbsl(part);
    } else {
      return (part);
    }
  };
  return absl::StrCat(bridged(parts)...);
}

}  // namespace temper::base
