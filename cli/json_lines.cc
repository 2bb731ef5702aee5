#include "cli/json_lines.h"

#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace temper::cli {
namespace {
constexpr size_t kMaxLineBytes = 16 << 20;
}

absl::Status ForEachJsonLine(const std::string& path,
                             const std::function<absl::Status(const nlohmann::json&)>& visit) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot open ", path));
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    const auto at = [&](absl::StatusCode code, absl::string_view what) {
      return absl::Status(code, absl::StrCat(path, ":", number, ": ", what));
    };
    if (line.size() > kMaxLineBytes) return at(absl::StatusCode::kDataLoss, "longer than 16 MiB");
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return at(absl::StatusCode::kDataLoss, "not a JSON object");
    if (const absl::Status status = visit(json); !status.ok()) {
      const bool damaged = absl::IsInvalidArgument(status);
      return at(damaged ? absl::StatusCode::kDataLoss : status.code(), status.message());
    }
  }
  return absl::OkStatus();
}

}  // namespace temper::cli
