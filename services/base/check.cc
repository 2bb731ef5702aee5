#include "services/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace temper::base {

void CheckFailed(const char* file, int line, const char* condition, const char* why) {
  std::fprintf(stderr, "%s:%d: check failed: %s (%s)\n", file, line, condition, why);
  std::abort();
}

}  // namespace temper::base
