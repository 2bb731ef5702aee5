#pragma once

#include "absl/status/status.h"

namespace temper::base {

// What a program's exit tells its launcher.
inline constexpr int kExitOk = 0;
inline constexpr int kExitRuntime = 1;  // something failed; another start may succeed
inline constexpr int kExitUsage = 2;    // command line or configuration; do not start again
inline constexpr int kExitData = 4;     // corrupt data: a checksum, a truncated file

// OK -> 0, InvalidArgument -> 2, DataLoss -> 4, everything else -> 1.
int ExitCode(const absl::Status& status);

}  // namespace temper::base
