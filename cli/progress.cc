#include "cli/progress.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/supervisor.h"

namespace temper::cli {
namespace {

using nlohmann::json;

// A number of the metrics line; NaN where it is missing or null.
double Number(const json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_number() ? value->get<double>() : std::nan("");
}

bool Flag(const json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_boolean() && value->get<bool>();
}

std::string StateName(v1::RunState state) {
  switch (state) {
    case v1::RUN_STATE_STARTING:
      return "starting";
    case v1::RUN_STATE_TRAINING:
      return "training";
    case v1::RUN_STATE_EVALUATING:
      return "evaluating";
    case v1::RUN_STATE_FINISHED:
      return "finished";
    case v1::RUN_STATE_STOPPED:
      return "stopped";
    case v1::RUN_STATE_FAILED:
      return "failed";
    default:
      return "waiting for the orchestrator";
  }
}

uint64_t Attempts(const v1::GetStatusReply& status, const std::string& state) {
  const auto found = status.attempts().find(state);
  return found == status.attempts().end() ? 0 : found->second;
}

}  // namespace

std::string ClockText(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return "?";
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  if (seconds >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }
  return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
}

absl::StatusOr<std::string> StepLine(const std::string& metrics_json, uint64_t planned_steps,
                                     absl::Duration since_last, absl::Duration left) {
  const json line = json::parse(metrics_json, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object())
    return absl::InvalidArgumentError("a metrics line that is not a JSON object");
  const double seconds = absl::ToDoubleSeconds(since_last);
  const double tokens = Number(line, "tokens_generated");
  std::string text = absl::StrFormat(
      "step %3d/%d  reward %6.3f  acc %5.1f%%  sigma %.4f  stale %d  gap %.5f  tok/s %6.0f  left "
      "%s",
      static_cast<int64_t>(Number(line, "step")), planned_steps, Number(line, "reward_mean"),
      100 * Number(line, "accuracy_raw"), Number(line, "sigma"),
      static_cast<int64_t>(Number(line, "staleness_max")), Number(line, "logprob_abs_diff_mean"),
      seconds > 0 ? tokens / seconds : 0.0, ClockText(left));
  if (Flag(line, "skipped")) absl::StrAppend(&text, "  skipped: no group with different rewards");
  return text;
}

std::string ActivityLine(const v1::GetStatusReply& status) {
  int workers = 0;
  for (const v1::Peer& member : status.members()) {
    workers += member.role() == v1::ROLE_ROLLOUT_WORKER && member.healthy() ? 1 : 0;
  }
  std::string text = StateName(status.state());
  if (status.state() == v1::RUN_STATE_EVALUATING) {
    uint64_t questions = 0;
    uint64_t done = 0;
    uint64_t version = 0;
    for (const v1::EvaluationProgress& evaluation : status.evaluations()) {
      version = std::max(version, evaluation.version());
    }
    for (const v1::EvaluationProgress& evaluation : status.evaluations()) {
      if (evaluation.version() != version) continue;
      questions += evaluation.questions();
      done += evaluation.done();
    }
    absl::StrAppend(&text, " version ", version, ": ", done, " of ", questions, " completions");
  } else if (status.state() == v1::RUN_STATE_TRAINING) {
    absl::StrAppend(&text, " step ", status.step() + 1, "/", status.planned_steps(), ": ",
                    Attempts(status, "leased"), " groups leased, ", Attempts(status, "admitted"),
                    " held");
  }
  absl::StrAppend(&text, ", ", workers, workers == 1 ? " worker" : " workers");
  if (!status.state_reason().empty()) absl::StrAppend(&text, " (", status.state_reason(), ")");
  return text;
}

}  // namespace temper::cli
