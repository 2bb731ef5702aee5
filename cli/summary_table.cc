#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/progress.h"

namespace temper::cli {
namespace {

using nlohmann::json;

// "66.1 % [63.5, 68.6]"
std::string Percent(double value, const json& interval) {
  if (!interval.is_array() || interval.size() != 2) return absl::StrFormat("%5.1f %%", 100 * value);
  return absl::StrFormat("%5.1f %% [%.1f, %.1f]", 100 * value, 100 * interval[0].get<double>(),
                         100 * interval[1].get<double>());
}

// "10 %"; "0.1" of the types whose strength is no share of the value; "mxfp4 weight, 10 %" under an
// injection. row: of by_scale or paired.
std::string ErrorName(const json& summary, const json& row) {
  const double scale = row.at("error_scale").get<double>();
  const bool share = summary.value("error_type", "relative_gaussian") == "relative_gaussian";
  const std::string strength =
      share ? absl::StrFormat("%g %%", 100 * scale) : absl::StrFormat("%g", scale);
  if (!row.value("injected", false)) return strength;
  const std::string injection = summary.value("injection", "injection");
  return scale == 0.0 ? injection : absl::StrCat(injection, ", ", strength);
}

// One row per error scale; a column per evaluated version.
std::string AccuracyRows(const json& summary) {
  // By injection, then error scale.
  std::map<std::pair<bool, double>, std::map<uint64_t, std::string>> cells;
  std::map<std::pair<bool, double>, std::string> names;
  size_t widest = 12;
  std::map<uint64_t, bool> versions;
  for (const json& cell : summary.value("by_scale", json::array())) {
    const uint64_t version = cell.at("version").get<uint64_t>();
    versions[version] = true;
    const std::pair<bool, double> error = {cell.value("injected", false),
                                           cell.at("error_scale").get<double>()};
    names[error] = ErrorName(summary, cell);
    widest = std::max(widest, names[error].size());
    cells[error][version] = Percent(cell.at("accuracy").get<double>(), cell.at("interval"));
  }
  if (cells.empty()) return "no evaluation was completed\n";
  const int width = static_cast<int>(widest) + 2;
  std::string text = absl::StrFormat("%-*s", width, "error");
  for (const auto& [version, unused] : versions) {
    absl::StrAppend(&text, absl::StrFormat("%-26s", absl::StrCat("after ", version, " updates")));
  }
  text += "\n";
  for (const auto& [error, row] : cells) {
    absl::StrAppend(&text, absl::StrFormat("%-*s", width, names[error]));
    for (const auto& [version, unused] : versions) {
      const auto cell = row.find(version);
      absl::StrAppend(&text, absl::StrFormat("%-26s", cell == row.end() ? "-" : cell->second));
    }
    text += "\n";
  }
  return text;
}

std::string PairedRows(const json& summary) {
  std::string text;
  for (const json& row : summary.value("paired", json::array())) {
    const json& interval = row.at("interval");
    absl::StrAppend(
        &text, absl::StrFormat(
                   "under %s error: %+.1f points [%+.1f, %+.1f], p = %.2g (%s, %d questions)\n",
                   ErrorName(summary, row), 100 * row.at("difference").get<double>(),
                   100 * interval.at(0).get<double>(), 100 * interval.at(1).get<double>(),
                   row.at("p_value").get<double>(), row.at("test").get<std::string>(),
                   row.at("questions").get<int64_t>()));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> SummaryTable(const std::string& summary_json,
                                         const std::string& run_dir) {
  const json summary = json::parse(summary_json, nullptr, /*allow_exceptions=*/false);
  if (!summary.is_object()) return absl::InvalidArgumentError("summary.json is not a JSON object");
  try {
    std::string text = absl::StrCat("\nAccuracy (", summary.value("reward_rule", "?"), ") under ",
                                    summary.value("error_type", "?"), " error, 95 % intervals\n",
                                    AccuracyRows(summary), PairedRows(summary));
    absl::StrAppend(&text, "\n", summary.value("steps", 0), " steps, ",
                    summary.value("steps_skipped", 0), " skipped, ",
                    ClockText(absl::Seconds(summary.value("wall_seconds", 0.0))), " in all\n");
    absl::StrAppend(&text, "record      ", run_dir, "/summary.json\n", "metrics     ", run_dir,
                    "/metrics.jsonl\n", "checkpoints ", run_dir, "/checkpoints\n",
                    "samples     ./temper samples ", run_dir);
    return text;
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("summary.json: ", error.what()));
  }
}

}  // namespace temper::cli
