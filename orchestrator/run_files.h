#pragma once

// The line files of a run directory: metrics.jsonl (an export of the ledger's commits) and
// events.jsonl (one object per change). Written by one thread, so that no caller waits for a disk.

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/base/clock.h"

namespace temper::orchestrator {

// Text as a JSON string with its quotes.
std::string JsonQuoted(const std::string& text);

// One key of an event with its value as JSON.
struct EventField {
  template <typename T>
  EventField(const char* field_key, const T& value) : key(field_key) {
    if constexpr (std::is_same_v<T, bool>) {
      json = value ? "true" : "false";
    } else if constexpr (std::is_arithmetic_v<T>) {
      json = absl::StrCat(value);
    } else {
      json = JsonQuoted(std::string(value));
    }
  }
  const char* key;
  std::string json;
};
using EventFields = std::initializer_list<EventField>;

// Thread-safe. A file that cannot be written (a full disk) is logged and tried again each second:
// metrics.jsonl is then rewritten whole; events wait in memory, at most kMaxWaitingEvents, the
// oldest are dropped and counted in an event of their own. The destructor writes what is left,
// once.
class RunFiles final {
 public:
  static constexpr size_t kMaxWaitingEvents = 10'000;

  // metrics: line s - 1 is the line of step s, of the steps that stand. metrics.jsonl is rewritten
  // from them, because the process that wrote it may have been killed half-way.
  RunFiles(std::string run_dir, std::vector<std::string> metrics, base::Clock* clock);
  ~RunFiles();
  RunFiles(const RunFiles&) = delete;
  RunFiles& operator=(const RunFiles&) = delete;

  void AppendMetrics(const std::string& line);
  // Keeps the lines of steps 1..keep; the others move to rewound/metrics.timeline_<n>.jsonl, where
  // n is the timeline that cut them off.
  void RewindMetrics(size_t keep, uint64_t timeline);
  // The same file from what the ledger remembers, if it is missing: the process that cut the lines
  // off may have been killed before it wrote them.
  void RestoreRewound(uint64_t timeline, const std::vector<std::string>& lines);
  std::vector<std::string> MetricsAfter(size_t step) const;

  // {"time": "...Z", "event": name, fields...}; to the log as well.
  void Event(const char* name, EventFields fields);

  // Waits until everything so far is written; DeadlineExceeded otherwise.
  absl::Status Flush(absl::Time deadline);

 private:
  struct RewoundPart {
    uint64_t timeline;
    std::string lines;
  };
  std::string RewoundPath(uint64_t timeline) const;
  void WriteUntilStopped();
  bool WriteOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);  // false: something failed
  bool WriteMetrics(size_t count, bool rewrite, const std::string& fresh);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !HasWork() && !writing_; }
  bool ShouldWake() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stop_ || HasWork(); }

  const std::string run_dir_;
  base::Clock* const clock_;
  mutable absl::Mutex mutex_;
  std::vector<std::string> metrics_ ABSL_GUARDED_BY(mutex_);
  size_t metrics_written_ ABSL_GUARDED_BY(mutex_) = 0;
  bool rewrite_metrics_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<RewoundPart> rewound_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> events_ ABSL_GUARDED_BY(mutex_);
  uint64_t events_dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // runs WriteUntilStopped; joined by the destructor
};

}  // namespace temper::orchestrator
