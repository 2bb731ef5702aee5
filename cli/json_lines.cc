#include "cli/json_lines.h"

#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"

namespace temper::cli {
namespace {
constexpr size_t kMaxLineBytes = 16 << 20;
}

absl::Status ForEachJsonLine(const std::string& path,
                             const std::function<absl::Status(const nlohmann::json&)>& visit) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    const auto at = [&](const std::string& what) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", what));
    };
    if (line.size() > kMaxLineBytes) return at("longer than 16 MiB");
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return at("not a JSON object");
    if (const absl::Status status = visit(json); !status.ok())
      return at(std::string(status.message()));
  }
  return absl::OkStatus();
}

}  // namespace temper::cli
