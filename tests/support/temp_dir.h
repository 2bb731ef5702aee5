#pragma once

#include <string>
#include <string_view>

namespace temper::testing {

// A fresh directory of this test, removed with all in it at the end.
class TempDir final {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // "<path>/<name>"; nothing is created.
  std::string File(std::string_view name) const;

 private:
  std::string path_;
};

}  // namespace temper::testing
