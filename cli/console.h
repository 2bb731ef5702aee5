#pragma once

#include <string>

#include "absl/time/time.h"

namespace temper::cli {

// Standard output as a person sees it: lines that stay, and on a terminal one transient line below
// them that is rewritten. Where standard output is no terminal, the activity is printed as a plain
// line when it changes, at most every ten seconds. Used by one thread.
class Console final {
 public:
  Console();
  ~Console();

  void Line(const std::string& text);
  void Activity(const std::string& text);
  void ClearActivity();

 private:
  const bool terminal_;
  std::string activity_;
  absl::Time last_activity_ = absl::InfinitePast();
};

}  // namespace temper::cli
