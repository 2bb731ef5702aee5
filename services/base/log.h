#pragma once

// One event, one line, key=value. The line goes to standard error, and to a file where the process
// was given one. Thread-safe.

#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "services/base/text.h"

namespace temper::base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One key and its value, already text. Values with spaces or quotes are quoted when printed.
struct LogField {
  template <typename T>
  LogField(std::string_view field_key, const T& field_value)
      : key(field_key), value(Cat(field_value)) {}
  std::string_view key;
  std::string value;
};

struct LogOptions {
  std::string role = "temper";       // stands in every line: role=orchestrator
  std::string file;                  // appended to; empty: standard error only
  LogLevel level = LogLevel::kInfo;  // lines below it are dropped
  bool to_stderr = true;
};

// Sets where lines go; call once in main before threads start. Without it: standard error, info.
// Returns: Unavailable if the file cannot be opened for appending.
absl::Status StartLogging(const LogOptions& options);

// Log(LogLevel::kInfo, "group_admitted", {{"group", 3}, {"attempt", 1}});
//   -> 2026-01-02T03:04:05.678Z I role=learner event=group_admitted group=3 attempt=1
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

inline void LogInfo(std::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, event, fields);
}
inline void LogWarning(std::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, event, fields);
}
inline void LogError(std::string_view event, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, event, fields);
}

}  // namespace temper::base
