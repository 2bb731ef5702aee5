#include "orchestrator/run_files.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_join.h"
#include "services/base/files.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::orchestrator {
namespace {

std::string Lines(const std::vector<std::string>& lines) {
  return lines.empty() ? std::string() : absl::StrCat(absl::StrJoin(lines, "\n"), "\n");
}

bool Logged(const absl::Status& status) {
  if (!status.ok()) base::LogWarning("file_not_written", {{"status", status.ToString()}});
  return status.ok();
}

}  // namespace

std::string JsonQuoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

RunFiles::RunFiles(std::string run_dir, std::vector<std::string> metrics, base::Clock* clock)
    : run_dir_(std::move(run_dir)), clock_(clock), metrics_(std::move(metrics)) {
  thread_ = std::thread([this] { WriteUntilStopped(); });
}

RunFiles::~RunFiles() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void RunFiles::AppendMetrics(const std::string& line) {
  absl::MutexLock lock(&mutex_);
  metrics_.push_back(line);
}

void RunFiles::RewindMetrics(size_t keep, uint64_t timeline) {
  absl::MutexLock lock(&mutex_);
  if (keep >= metrics_.size()) return;
  rewound_.push_back({timeline, Lines({metrics_.begin() + keep, metrics_.end()})});
  metrics_.resize(keep);
  rewrite_metrics_ = true;
}

std::string RunFiles::RewoundPath(uint64_t timeline) const {
  return absl::StrCat(run_dir_, "/rewound/metrics.timeline_", timeline, ".jsonl");
}

void RunFiles::RestoreRewound(uint64_t timeline, const std::vector<std::string>& lines) {
  if (lines.empty() || base::PathExists(RewoundPath(timeline))) return;
  absl::MutexLock lock(&mutex_);
  rewound_.push_back({timeline, Lines(lines)});
}

std::vector<std::string> RunFiles::MetricsAfter(size_t step) const {
  absl::MutexLock lock(&mutex_);
  if (step >= metrics_.size()) return {};
  return {metrics_.begin() + step, metrics_.end()};
}

void RunFiles::Event(const char* name, EventFields fields) {
  std::string rest;
  for (const EventField& field : fields) {
    absl::StrAppend(&rest, ", \"", field.key, "\": ", field.json);
  }
  base::LogInfo(name, {{"fields", rest.empty() ? "{}" : absl::StrCat("{", rest.substr(2), "}")}});
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", clock_->Now(), absl::UTCTimeZone());
  absl::MutexLock lock(&mutex_);
  if (events_.size() >= kMaxWaitingEvents) {
    events_.erase(events_.begin());
    ++events_dropped_;
  }
  events_.push_back(
      absl::StrCat("{\"time\": \"", time, "\", \"event\": ", JsonQuoted(name), rest, "}"));
}

absl::Status RunFiles::Flush(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  if (clock_->AwaitUntil(&mutex_, absl::Condition(this, &RunFiles::Idle), deadline)) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError("the run's line files are not written yet");
}

bool RunFiles::HasWork() const {
  return rewrite_metrics_ || metrics_written_ < metrics_.size() || !events_.empty() ||
         !rewound_.empty();
}

bool RunFiles::WriteMetrics(size_t count, bool rewrite, const std::string& fresh) {
  const std::string path = absl::StrCat(run_dir_, "/metrics.jsonl");
  if (!rewrite && fresh.empty()) return true;
  const bool done = rewrite ? Logged(base::WriteFileAtomically(path, fresh))
                            : Logged(base::AppendToFile(path, fresh));
  absl::MutexLock lock(&mutex_);
  if (!done) {
    rewrite_metrics_ = true;  // an append may have left half a line
  } else {
    metrics_written_ = count;
  }
  return done;
}

bool RunFiles::WriteOnce() {
  const bool rewrite = rewrite_metrics_;
  const size_t from = rewrite ? 0 : metrics_written_;
  const size_t count = metrics_.size();
  const std::string fresh = Lines({metrics_.begin() + from, metrics_.end()});
  rewrite_metrics_ = false;
  std::vector<std::string> events = std::move(events_);
  events_.clear();
  if (events_dropped_ > 0) {
    events.insert(
        events.begin(),
        absl::StrCat("{\"event\": \"events_dropped\", \"count\": ", events_dropped_, "}"));
    events_dropped_ = 0;
  }
  std::vector<RewoundPart> rewound = std::move(rewound_);
  rewound_.clear();
  writing_ = true;
  mutex_.Unlock();

  bool done = true;
  std::vector<RewoundPart> left;
  for (RewoundPart& part : rewound) {
    absl::Status status = base::MakeDirectories(absl::StrCat(run_dir_, "/rewound"));
    if (status.ok()) {
      status = base::WriteFileAtomically(RewoundPath(part.timeline), part.lines);
    }
    if (!Logged(status)) left.push_back(std::move(part));
  }
  done = WriteMetrics(count, rewrite, fresh) && left.empty();
  const bool events_done =
      events.empty() ||
      Logged(base::AppendToFile(absl::StrCat(run_dir_, "/events.jsonl"), Lines(events)));

  mutex_.Lock();
  writing_ = false;
  rewound_.insert(rewound_.begin(), std::make_move_iterator(left.begin()),
                  std::make_move_iterator(left.end()));
  if (!events_done) {
    events_.insert(events_.begin(), std::make_move_iterator(events.begin()),
                   std::make_move_iterator(events.end()));
  }
  return done && events_done;
}

void RunFiles::WriteUntilStopped() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    clock_->AwaitUntil(&mutex_, absl::Condition(this, &RunFiles::ShouldWake),
                       absl::InfiniteFuture());
    const bool done = !HasWork() || WriteOnce();
    if (stop_) return;
    if (!done) {
      clock_->AwaitUntil(&mutex_, absl::Condition(&stop_), clock_->Now() + absl::Seconds(1));
    }
  }
}

}  // namespace temper::orchestrator
