#include "tests/support/temp_dir.h"

#include <stdlib.h>

#include <filesystem>
#include <system_error>

#include "services/base/check.h"

namespace temper::testing {

TempDir::TempDir()
    : path_((std::filesystem::temp_directory_path() / "temper-test-XXXXXX").string()) {
  TEMPER_CHECK(mkdtemp(path_.data()) != nullptr, "a test can make a directory");
}

TempDir::~TempDir() {
  std::error_code ignored;  // a directory that stays behind fails no test
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::File(std::string_view name) const { return path_ + "/" + std::string(name); }

}  // namespace temper::testing
