#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace temper::cli {

// Calls `visit` with each JSON object of a file of JSON lines ("-": standard input); empty lines
// are passed over. Stops at the first error. DataLoss "file:line: ..." for a line that is not a
// JSON object or is longer than 16 MiB, and for what `visit` refuses as InvalidArgument: the file
// is damaged, not the command line. What else `visit` returns keeps its code. InvalidArgument if
// there is no such file.
absl::Status ForEachJsonLine(const std::string& path,
                             const std::function<absl::Status(const nlohmann::json&)>& visit);

}  // namespace temper::cli
