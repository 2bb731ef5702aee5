#include "services/base/log.h"

#include <cstdio>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace temper::base {
namespace {

struct Sink {
  absl::Mutex mutex;
  LogOptions options ABSL_GUARDED_BY(mutex);
  std::FILE* file ABSL_GUARDED_BY(mutex) = nullptr;
};

// The one place lines leave the process by; never destroyed, so that late threads may still log.
Sink& TheSink() {
  static Sink* sink = new Sink;
  return *sink;
}

std::string Quoted(const std::string& value) {
  if (!value.empty() && value.find_first_of(" \"\n\t=") == std::string::npos) return value;
  return Cat("\"", absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}),
             "\"");
}

}  // namespace

absl::Status StartLogging(const LogOptions& options) {
  Sink& sink = TheSink();
  absl::MutexLock lock(&sink.mutex);
  if (!options.file.empty()) {
    std::FILE* file = std::fopen(options.file.c_str(), "ae");
    if (file == nullptr) {
      return absl::UnavailableError(Cat("cannot append to the log file ", options.file));
    }
    if (sink.file != nullptr) std::fclose(sink.file);
    sink.file = file;
  }
  sink.options = options;
  return absl::OkStatus();
}

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  Sink& sink = TheSink();
  absl::MutexLock lock(&sink.mutex);
  if (level < sink.options.level) return;
  std::string line = Cat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()),
                         " ", std::string(1, "DIWE"[static_cast<int>(level)]),
                         " role=", sink.options.role, " event=", event);
  for (const LogField& field : fields)
    line += Cat(" ", field.key, "=", Quoted(field.value));
  line.push_back('\n');
  if (sink.options.to_stderr) std::fwrite(line.data(), 1, line.size(), stderr);
  if (sink.file != nullptr) {
    std::fwrite(line.data(), 1, line.size(), sink.file);
    std::fflush(sink.file);
  }
}

}  // namespace temper::base
