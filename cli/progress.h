#pragma once

// What a person sees while a run goes on, and at its end. Pure: numbers in, text out.

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "temper/v1/orchestrator.pb.h"

namespace temper::cli {

// The line of one closed step. metrics_json: its line of metrics.jsonl. since_last: wall time since
// the step before closed (rates are of that). left: estimated time left, or InfiniteDuration.
// InvalidArgument if the line is not a JSON object.
absl::StatusOr<std::string> StepLine(const std::string& metrics_json, uint64_t planned_steps,
                                     absl::Duration since_last, absl::Duration left);

// One transient line of what goes on now: members, state, groups held or evaluation progress.
std::string ActivityLine(const v1::GetStatusReply& status);

// The table at the end: accuracy by error scale before and after with 95 % intervals, the paired
// tests, the accounting, and where everything lies. summary_json: RUN/summary.json.
// InvalidArgument if it is not what the orchestrator writes.
absl::StatusOr<std::string> SummaryTable(const std::string& summary_json,
                                         const std::string& run_dir);

// "1:02:03", "2:10", "0:05"; "?" for InfiniteDuration.
std::string ClockText(absl::Duration duration);

}  // namespace temper::cli
